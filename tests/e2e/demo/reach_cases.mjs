// Everybody can use it: every width, light and dark, by keyboard, by a screen reader, without motion.

import { equal, holds } from '../lib/cases.mjs';
import { ALL, DemoPage, until } from './page.mjs';

export const reach = ({ node, browser, demo, page }) => ({
  a_burst_is_announced_in_few_words: async () => {
    await page.evaluate(() => {
      globalThis.spoken = [];
      new MutationObserver(() => globalThis.spoken.push(document.querySelector('#announcer').textContent))
        .observe(document.querySelector('#announcer'), { childList: true, characterData: true, subtree: true });
    });
    const before = await demo.unread('bob-tablet');
    await demo.pick('everyone');
    await page.locator('#send-many').click();
    await demo.says('100 notifications accepted');
    await demo.unreadReaches('bob-tablet', before + 100);
    await page.waitForFunction(() => globalThis.spoken.join(' ').includes('notifications came to'));
    const spoken = await page.evaluate(() => globalThis.spoken);
    holds(spoken.length <= 8, `said ${spoken.length} times: ${spoken}`);
  },

  it_fits_every_width: async () => {
    const sent = await demo.send('everyone', 'W'.repeat(150), { data: `"${'long'.repeat(200)}"` });
    await demo.inState('bob-tablet', sent, 'new');
    for (const width of [1440, 1280, 1100, 768, 640, 360]) {
      await page.setViewportSize({ width, height: 800 });
      equal(await demo.tooWide(), 0, `pixels too wide at ${width}`);
    }
    await demo.dress({});
  },

  it_is_accessible: async () => {
    await page.locator('.options summary').click();
    await page.locator('#console-toggle').click();
    await demo.device('ada-phone').locator('.wire summary').click();
    const found = [];
    await demo.everyDress(async name => found.push(...(await demo.accessibilityFaults()).map(fault => `${name} ${fault}`)));
    equal(found, []);
    await demo.device('ada-phone').locator('.wire summary').click();
    await page.locator('#console-toggle').click();
    await page.locator('.options summary').click();
    await demo.everyDress(async name => found.push(...(await demo.accessibilityFaults()).map(fault => `${name} ${fault}`)));
    equal(found, []);
    await demo.everyDress(name => demo.screenshot(`used-${name}`));
  },

  the_keyboard_reaches_everything_and_is_never_trapped: async () => {
    const { stops, hidden } = await walk(page);
    for (const wanted of ['Skip to sending', 'Show me', 'Send', 'Add device', 'Unplug', 'Withdraw', 'As code', 'Copy']) {
      holds(stops.some(stop => stop === wanted), `${wanted} is not among ${[...new Set(stops)].join(', ')}`);
    }
    equal(hidden, [], 'stops without a visible focus, or out of sight');
  },

  it_can_be_used_by_keyboard_alone: async () => {
    await page.reload();
    await demo.connected(...ALL);
    const keys = async (...names) => { for (const name of names) await page.keyboard.press(name); };
    await keys('Tab', 'Enter', 'Tab');
    equal(await page.evaluate(() => document.activeElement.name), 'to', 'the skip link leads to the form');
    // From everyone, which is chosen, two back to ada.
    await keys('ArrowUp', 'ArrowUp', 'Tab', 'Tab');
    equal(await page.evaluate(() => document.activeElement.name), 'subject');
    await page.keyboard.type('Typed');
    await keys('Control+Enter');
    const id = await page.locator('#timeline-id').filter({ hasText: /./ }).textContent();
    await demo.inState('ada-laptop', id, 'new');
    equal(await demo.item('bob-tablet', id).count(), 0, 'at bob');
    await until(() => page.evaluate(() => document.activeElement.dataset.part === 'read'), () => keys('Tab'));
    await keys('Enter');
    await demo.inState('ada-phone', id, 'read');
    const held = await page.evaluate(() => document.activeElement.closest('.item') !== null);
    equal(held, true, 'the focus stays in the list');
  },

  who_wants_less_motion_gets_none: async () => {
    const still = await DemoPage.open(browser, node, { reducedMotion: 'reduce' });
    await still.connected(...ALL);
    const sent = await still.send('everyone', 'Be still');
    await still.inState('ada-laptop', sent, 'new');
    equal(await still.page.evaluate(() => document.getAnimations().length), 0);
    equal(still.faults, []);
    await still.close();
  },
});

/** Presses Tab from the page's top until it leaves; what had the focus, and what of that could not be seen. */
async function walk(page) {
  // The order begins where the focus was; so it is put before everything.
  await page.evaluate(() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); scrollTo(0, 0); });
  const stops = [];
  const hidden = [];
  for (let presses = 0; presses < 260; presses += 1) {
    await page.keyboard.press('Tab');
    const stop = await page.evaluate(() => {
      const node = document.activeElement;
      if (node === document.body) return null;
      const marked = node.matches('.pick input, .switch input') ? node.nextElementSibling : node;
      const { top, bottom } = marked.getBoundingClientRect();
      const bar = node.closest('#console') ? innerHeight : document.querySelector('#console').getBoundingClientRect().top;
      const isSeen = getComputedStyle(marked).outlineStyle !== 'none' && bottom > 0 && top < bar - 4;
      return { name: (node.innerText || node.getAttribute('aria-label') || node.name || '').trim().split('\n')[0], isSeen };
    });
    if (!stop) return { stops, hidden };
    stops.push(stop.name);
    if (!stop.isSeen) hidden.push(stop.name);
  }
  throw new Error('260 times Tab did not lead out of the page');
}
