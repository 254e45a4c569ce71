// Ask once with MQTT.js and print what came back as JSON: {final, deltas, events}.
//   node ask.js PORT text MAILBOX PROMPT      MQTT 3.1.1, bare text
//   node ask.js PORT stream MAILBOX PROMPT    MQTT 5, response topic, correlation data, user property
const mqtt = require('mqtt');

const [port, manner, mailbox, prompt] = process.argv.slice(2);
const seen = { final: null, deltas: [], events: [] };

async function main() {
  const stream = manner === 'stream';
  const asked = stream ? `${mailbox}/answers/mine` : `${mailbox}/reply`;
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion: stream ? 5 : 4 });
  const complete = new Promise((resolve) => {
    client.on('message', (topic, payload, packet) => {
      const message = { topic, payload: payload.toString(), ...plain(packet.properties) };
      if (topic === asked) seen.final = message;
      else seen[`${topic.split('/').pop()}s`].push(message);
      // Deltas are QoS 0: nothing promises that they overtake the final.
      const expected = stream && seen.final ? JSON.parse(seen.final.payload).deltas : 0;
      if (seen.final && seen.deltas.length >= expected) resolve();
    });
  });
  await client.subscribeAsync(stream ? `${asked}/#` : asked, { qos: 1 });
  if (stream) {
    const properties = {
      responseTopic: asked,
      correlationData: Buffer.from([0, 255, 42]),
      contentType: 'application/json',
      userProperties: { 'x-room': 'kitchen', secret: 'stays here' },
    };
    await client.publishAsync(`${mailbox}/request/js`, JSON.stringify({ prompt, stream }), { qos: 1, properties });
  } else {
    await client.publishAsync(`${mailbox}/request`, prompt, { qos: 1 });
  }
  await complete;
  console.log(JSON.stringify(seen));
  await client.endAsync();
}

function plain({ correlationData, userProperties } = {}) {
  return { correlationData: correlationData?.toString('hex'), userProperties: { ...userProperties } };
}

main();
