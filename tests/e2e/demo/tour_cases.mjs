// What the page shows by itself, step by step.

import { holds } from '../lib/cases.mjs';

const STEPS = ['everyone', 'read', 'resume', 'slow', 'topic', 'account'];

export const tour = scene => Object.fromEntries(STEPS.map(name => [`the_page_shows_by_itself_${name}`, () => show(scene, name)]));

async function show({ demo, page }, name) {
  await demo.step(name).getByRole('button').click();
  await demo.isDone(name);
  await page.waitForFunction(() => !document.querySelector('#tour button[aria-disabled]'));
  const says = await page.locator('#tour-says').innerText();
  holds(!says.includes('could not'), says);
  if (name === 'resume') await demo.everyDress(dress => demo.screenshot(`shown-${dress}`, false));
}
