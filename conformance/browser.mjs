// Checks evidence packs with verify.html in a browser that has no network:
// node browser.mjs CHROMIUM PAGE LOG_KEY RECEIPT_KEY PACK.tar... prints what the page says of each.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const [browserPath, page, logKey, receiptKey, ...packs] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });
const context = await browser.newContext({ offline: true });
const tab = await context.newPage();
const errors = [];
tab.on('pageerror', (e) => errors.push(e.message));
tab.on('request', (r) => r.url().startsWith('file:') || errors.push('it asks the network: ' + r.url()));
for (const pack of packs) {
  await tab.goto(pathToFileURL(page).href);
  await tab.fill('#logkey', logKey);
  await tab.fill('#keys', readFileSync(receiptKey, 'utf8'));
  await tab.setInputFiles('#tar', pack);
  await tab.click('#go:enabled');
  await tab.waitForFunction(() => document.querySelector('#out').textContent !== '' && !document.querySelector('#go').disabled);
  console.log(JSON.stringify({
    verdict: await tab.textContent('#verdict'),
    shown: await tab.evaluate(() => [...document.querySelectorAll('#out tr')].map((r) => [...r.cells].map((c) => c.textContent).join(': '))),
    errors,
  }));
}
await browser.close();
