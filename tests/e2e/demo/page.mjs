// The demo page, in the words of who uses it.

import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SHOWN_MS, artifact } from '../lib/browser.mjs';
import { equal } from '../lib/cases.mjs';

export const SIZES = { desk: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } };
export const SCHEMES = ['light', 'dark'];
/** The devices that the page begins with: by WebSocket, SSE and long poll. */
export const ALL = ['ada-laptop', 'ada-phone', 'bob-tablet'];

const require = createRequire(join(process.env.POSTRIDER_NODE_TOOLS, 'here.js'));
const axe = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8');

export class DemoPage {
  /** What the page did wrong: errors, logged errors, violations of its policy. */
  faults = [];

  static async open(browser, node, settings = {}) {
    const demo = new DemoPage();
    demo.node = node;
    demo.context = await browser.newContext({ viewport: SIZES.desk, colorScheme: 'light', ...settings });
    await demo.context.grantPermissions(['clipboard-read', 'clipboard-write']);
    demo.page = await demo.context.newPage();
    demo.page.setDefaultTimeout(SHOWN_MS);
    demo.page.on('pageerror', error => demo.faults.push(error.message));
    demo.page.on('console', entry => { if (['error', 'warning'].includes(entry.type())) demo.faults.push(entry.text()); });
    await demo.page.exposeFunction('tellViolation', text => demo.faults.push(text));
    await demo.page.addInitScript(watch);
    await demo.page.goto(node.demo.page);
    return demo;
  }

  close() {
    return this.context.close();
  }

  /* Devices: 'ada-laptop', 'ada-phone', 'bob-tablet' … */

  device(name) {
    return this.page.locator(`[data-device="${name}"]`);
  }

  part(name, part) {
    return this.device(name).locator(`[data-part="${part}"]`);
  }

  item(name, id) {
    return this.device(name).locator(`.item[data-id="${id}"]`);
  }

  user(name) {
    return this.page.locator(`[data-user="${name}"]`);
  }

  phase(name, phase) {
    return this.device(name).locator(`[data-part="status"][data-phase="${phase}"]`).waitFor();
  }

  connected(...names) {
    return Promise.all(names.map(name => this.phase(name, 'connected')));
  }

  async transport(name, value) {
    await this.part(name, 'transport').selectOption(value);
    await this.connected(name);
  }

  async unplug(name) {
    await this.part(name, 'plug').click();
    await this.phase(name, 'unplugged');
  }

  async plugIn(name) {
    await this.part(name, 'plug').click();
    await this.connected(name);
  }

  /** Waits until the item is in the state there; says what it was in, if not. */
  async inState(name, id, state) {
    const found = this.item(name, id);
    try {
      await found.and(this.page.locator(`[data-state="${state}"]`)).waitFor();
    } catch {
      const shown = await found.count() ? await found.getAttribute('data-state') : 'not there';
      throw new Error(`${id} on ${name} is ${shown} instead of ${state}`);
    }
  }

  async unread(name) {
    return Number(await this.part(name, 'unread').getAttribute('data-count'));
  }

  notice(name, text) {
    return this.part(name, 'notice').filter({ hasText: text }).waitFor();
  }

  /** Waits until so many are unread there. */
  unreadReaches(name, least) {
    return this.page.waitForFunction(([name, least]) =>
      Number(document.querySelector(`[data-device="${name}"] [data-part="unread"]`).dataset.count) >= least, [name, least]);
  }

  /* The composer */

  pick(to) {
    return this.page.locator(`.pick:has(input[name="to"][value="${to}"])`).click();
  }

  /** Sends by the form; the id that the page then shows. */
  async send(to, subject, { data = '{"order": 7}', ...options } = {}) {
    const { page } = this;
    await this.pick(to);
    await page.locator('input[name="subject"]').fill(subject);
    await page.locator('textarea[name="data"]').fill(data);
    await this.#options(options);
    const before = await page.locator('#timeline-id').textContent();
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.waitForFunction(before => {
      const shown = document.querySelector('#timeline-id').textContent;
      return shown && shown !== before;
    }, before);
    return page.locator('#timeline-id').textContent();
  }

  async #options({ ttl = '', collapse = '', transient = false }) {
    const options = this.page.locator('.options');
    if (!await options.evaluate(node => node.open)) {
      if (!ttl && !collapse && !transient) return;
      await options.locator('summary').click();
    }
    await this.page.locator('input[name="ttl"]').fill(ttl);
    await this.page.locator('input[name="collapse"]').fill(collapse);
    await this.page.locator('input[name="transient"]').setChecked(transient);
  }

  says(text) {
    return this.page.locator('#sent-says').filter({ hasText: text }).waitFor();
  }

  /** Publishes past the page. */
  async publish(lines) {
    const { url, demo } = this.node;
    const headers = { Authorization: `Bearer ${demo.api_key}`, 'Content-Type': 'application/x-ndjson' };
    const answer = await fetch(`${url}/v1/notifications`, { method: 'POST', headers, body: lines.map(line => JSON.stringify(line)).join('\n') });
    equal((await answer.text()).split('\n').filter(line => line.includes('"accepted":true')).length, lines.length, 'accepted');
  }

  /* The rest of the page */

  step(name) {
    return this.page.locator(`#tour [data-step="${name}"]`);
  }

  isDone(name) {
    return this.step(name).locator('.tick').filter({ hasText: 'Done' }).waitFor();
  }

  event(kind, text = '') {
    return this.page.locator(`.story [data-event="${kind}"]`).filter({ hasText: text }).first();
  }

  alert(text) {
    return this.page.getByRole('alert').filter({ hasText: text });
  }

  /** What Copy puts into the clipboard. */
  async copied() {
    await this.page.evaluate(() => navigator.clipboard.writeText(''));
    await this.page.locator('#console-copy').click();
    let text = '';
    await until(async () => (text = await this.page.evaluate(() => navigator.clipboard.readText())) !== '', () => this.page.waitForTimeout(20));
    return text;
  }

  /* The whole */

  async dress({ size = 'desk', scheme = 'light' }) {
    await this.page.setViewportSize(SIZES[size]);
    await this.page.emulateMedia({ colorScheme: scheme });
  }

  /** Calls `act(name)` at each size and in each scheme, then goes back to the desk. */
  async everyDress(act) {
    for (const size of Object.keys(SIZES)) {
      for (const scheme of SCHEMES) {
        await this.dress({ size, scheme });
        await act(`${size}-${scheme}`);
      }
    }
    await this.dress({});
  }

  screenshot(name, fullPage = true) {
    return this.page.screenshot({ path: artifact(`${name}.png`), fullPage });
  }

  tooWide() {
    return this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  }

  /** What axe finds of serious kind or above: rule, and the first place. */
  async accessibilityFaults() {
    // Evaluated by the driver, and so past the page's own policy.
    if (!await this.page.evaluate(() => 'axe' in globalThis)) await this.page.evaluate(axe);
    return this.page.evaluate(async () => {
      const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
      return violations.filter(({ impact }) => ['serious', 'critical'].includes(impact)).map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 160)} ${nodes[0].any[0]?.message ?? ''}`);
    });
  }
}

/** In the page, before anything else: tells what the policy stopped, and keeps what shifted. */
function watch() {
  globalThis.shifts = [];
  addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => globalThis.tellViolation(`${violatedDirective}: ${blockedURI}`));
  new PerformanceObserver(list => globalThis.shifts.push(...list.getEntries().map(({ value, hadRecentInput }) => ({ value, hadRecentInput }))))
    .observe({ type: 'layout-shift', buffered: true });
}

/** Acts until it is so. */
export async function until(isSo, act, most = 200) {
  for (let times = 0; times < most; times += 1) {
    if (await isSo()) return;
    await act();
  }
  throw new Error(`not so after ${most} times`);
}
