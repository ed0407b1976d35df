// A real Chromium, driven by playwright-core from the private folder that POSTRIDER_NODE_TOOLS names.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const tools = process.env.POSTRIDER_NODE_TOOLS;
if (!tools) throw new Error('POSTRIDER_NODE_TOOLS must name the folder of playwright-core: run `cargo xtask test --only …`');
const { chromium } = createRequire(join(tools, 'here.js'))('playwright-core');

/** How long a page may take for what it shows. */
export const SHOWN_MS = 30_000;

export function launch() {
  return chromium.launch({
    executablePath: process.env.POSTRIDER_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  });
}

export const artifact = name => join(process.env.POSTRIDER_ARTIFACTS ?? '.', name);

/**
 * A page of the node's origin. `serve` has none of its own, so it is the problem document of an unknown path, which a browser
 * shows as text. It has to come from the node: a page made up by the driver counts as one of a public network,
 * and Chromium lets no such page open a WebSocket to this machine.
 */
export async function pageOf(browser, url) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(SHOWN_MS);
  await page.goto(`${url}/no-page-here`);
  return page;
}
