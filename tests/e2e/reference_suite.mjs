// The page that a node shows of its interface at /docs: read at a desk's and a phone's width, in light and dark, by
// keyboard, without scripts. Leaves screenshots in the artifacts' folder.

import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SHOWN_MS, artifact, launch } from './lib/browser.mjs';
import { equal, holds, run } from './lib/cases.mjs';
import { Node } from './lib/node.mjs';

const SIZES = { desk: { width: 1280, height: 900 }, phone: { width: 360, height: 740 } };
const SCHEMES = ['light', 'dark'];
// Long, with a body, parameters and many answers.
const OPERATION = 'publish';

const require = createRequire(join(process.env.POSTRIDER_NODE_TOOLS, 'here.js'));
const axe = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8');
const node = await Node.start();
const url = `${node.url}/docs`;
const browser = await launch();
const faults = [];

async function open(size, scheme, more = {}) {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme: scheme, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(SHOWN_MS);
  page.on('pageerror', error => faults.push(error.message));
  page.on('console', entry => { if (['error', 'warning'].includes(entry.type())) faults.push(entry.text()); });
  await page.goto(url);
  return page;
}

const details = (page, id) => page.locator(`details:has(#${id})`);
const wide = page => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

const cases = {
  async it_fits_at_every_width_and_in_every_scheme() {
    for (const size of Object.keys(SIZES)) {
      for (const scheme of SCHEMES) {
        const page = await open(size, scheme);
        await page.evaluate(() => document.querySelectorAll('details').forEach(details => { details.open = true; }));
        equal(await wide(page), 0, `pixels over the edge at ${size}`);
        const [text, ground] = await page.evaluate(() => {
          const style = getComputedStyle(document.body);
          return [style.color, style.backgroundColor];
        });
        holds(text !== ground, `${scheme}: ${text} on ${ground}`);
        await page.context().close();
      }
    }
  },

  async it_is_accessible() {
    for (const size of Object.keys(SIZES)) {
      for (const scheme of SCHEMES) {
        // The page lets no script in but the driver's own.
        const page = await open(size, scheme, { bypassCSP: true });
        await page.evaluate(() => document.querySelectorAll('details').forEach(details => { details.open = true; }));
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 120)}`);
        equal(found, [], `${size}, ${scheme}`);
        await page.context().close();
      }
    }
  },

  async a_link_opens_its_operation() {
    const page = await open('desk', 'light');
    equal(await details(page, OPERATION).evaluate(element => element.open), false, 'open before');
    await page.locator(`nav a[href="#${OPERATION}"]`).click();
    await page.locator(`#${OPERATION}`).waitFor();
    const summary = details(page, OPERATION).locator('summary');
    holds((await summary.boundingBox()).y >= 0, 'its first line is out of sight');
    await page.screenshot({ path: artifact('docs-operation.png') });
    await page.context().close();
  },

  async the_keyboard_reaches_and_opens_everything() {
    const page = await open('desk', 'light');
    await page.keyboard.press('Tab');
    equal(await page.evaluate(() => document.activeElement.className), 'skip', 'first stop');
    await page.keyboard.press('Enter');
    await page.waitForURL(/#/);
    const first = details(page, OPERATION);
    for (let stop = 0; stop < 10 && !await first.locator('summary').evaluate(element => element === document.activeElement); stop += 1) {
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Enter');
    equal(await first.evaluate(element => element.open), true, 'opened by Enter');
    await page.context().close();
  },

  async it_needs_no_script() {
    const page = await open('desk', 'light', { javaScriptEnabled: false });
    await page.locator('summary').first().click();
    await page.locator('details[open] .op').first().waitFor();
    await page.context().close();
  },

  async it_names_every_operation_of_the_document() {
    const document = await (await fetch(`${node.url}/openapi.json`)).json();
    const ids = Object.values(document.paths).flatMap(item => Object.values(item).map(operation => operation.operationId).filter(Boolean));
    const page = await open('desk', 'light');
    const shown = await page.locator('.op').evaluateAll(elements => elements.map(element => element.id));
    equal(shown.sort(), ids.sort(), 'operations');
    await page.context().close();
  },

  async screenshots_are_left_to_be_looked_at() {
    for (const size of Object.keys(SIZES)) {
      for (const scheme of SCHEMES) {
        const page = await open(size, scheme);
        await page.goto(`${url}#${OPERATION}`);
        await page.screenshot({ path: artifact(`docs-${size}-${scheme}.png`) });
        await page.context().close();
      }
    }
  },

  the_page_reports_no_fault: async () => equal(faults, []),
};

const status = await run(cases);
if (status) console.log(`     the node's log ends: ${await node.log()}`);
await browser.close();
await node.remove();
process.exit(status);
