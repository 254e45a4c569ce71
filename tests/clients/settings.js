// Node-RED without its editor: no port is opened, nothing is asked of the internet, nothing is written.
module.exports = {
  httpAdminRoot: false,
  httpNodeRoot: false,
  telemetry: { enabled: false, updateNotification: false },
  diagnostics: { enabled: false },
  readOnly: true,
  credentialSecret: false,
  externalModules: { palette: { allowInstall: false }, modules: { allowInstall: false } },
  logging: { console: { level: 'info' } },
};
