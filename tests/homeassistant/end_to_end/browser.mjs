// node browser.mjs JOB.json: drive the real frontend with a headless Chromium, and take pictures of it.
// The job names the page's address, the tokens of who is signed in, and the steps.
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const job = JSON.parse(readFileSync(process.argv[2]));
const { chromium } = createRequire(job.driver)("playwright-core");
const folder = mkdtempSync(join(tmpdir(), "browser-"));
const context = await chromium.launchPersistentContext(folder, {
  executablePath: job.chromium,
  headless: true,
  viewport: { width: 1200, height: 800 },
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
});

// All text below a node, through the shadow roots that the frontend is made of.
const textOf = () => {
  const read = (node) =>
    (node.shadowRoot ? read(node.shadowRoot) : "") +
    [...node.childNodes].map((child) => (child.nodeType === 3 ? child.data : read(child))).join("");
  return read(document.body);
};

async function ask(page, text) {
  const chat = page.locator("ha-voice-command-dialog ha-assist-chat");
  const input = chat.locator("input, textarea").first();
  // The start page may redirect, which closes a dialog that was opened too early.
  for (let attempt = 0; ; attempt++) {
    try {
      if (!(await input.isVisible())) {
        await page.getByRole("button", { name: /^Assist\b/ }).first().click({ timeout: 15000 });
      }
      await input.fill(text, { timeout: 10000 });
      await input.press("Enter", { timeout: 5000 });
      return;
    } catch (error) {
      if (attempt === 3) throw error;
      await page.waitForTimeout(500);
    }
  }
}

try {
  const page = context.pages()[0] ?? (await context.newPage());
  await page.addInitScript((tokens) => {
    localStorage.setItem("hassTokens", JSON.stringify(tokens));
    localStorage.setItem("selectedLanguage", '"en"');
  }, job.tokens);
  for (const step of job.steps) {
    if (step.go) await page.goto(job.url + step.go, { waitUntil: "domcontentloaded" });
    if (step.ask) await ask(page, step.ask);
    if (step.wait) {
      await page.waitForFunction(
        ([read, wanted]) => new RegExp(wanted).test(new Function(`return (${read})()`)()),
        [textOf.toString(), step.wait],
        { timeout: 60000 },
      );
    }
    if (step.shot) {
      await page.waitForTimeout(1500); // animations and pictures
      await page.screenshot({ path: step.shot });
    }
  }
} finally {
  await context.close();
  rmSync(folder, { recursive: true, force: true });
}
