// The demo page as a person uses it: every thing it shows, by mouse and by keyboard, at a desk's and a phone's width,
// in light and dark, checked for accessibility. The cases stand in demo/. Leaves screenshots in the artifacts' folder.

import { code } from './demo/code_cases.mjs';
import { DemoPage } from './demo/page.mjs';
import { people } from './demo/people_cases.mjs';
import { reach } from './demo/reach_cases.mjs';
import { resuming } from './demo/resuming_cases.mjs';
import { sending } from './demo/sending_cases.mjs';
import { tour } from './demo/tour_cases.mjs';
import { trouble } from './demo/trouble_cases.mjs';
import { launch } from './lib/browser.mjs';
import { equal, run } from './lib/cases.mjs';
import { Node } from './lib/node.mjs';

const node = await Node.start('demo');
const browser = await launch();
const demo = await DemoPage.open(browser, node);
const scene = { node, browser, demo, page: demo.page };

const cases = {
  ...sending(scene),
  ...people(scene),
  ...resuming(scene),
  ...code(scene),
  ...tour(scene),
  ...reach(scene),
  the_page_reports_no_fault: async () => equal(demo.faults, []),
  ...trouble(scene),
};

const status = await run(cases, name => demo.screenshot(`failed-demo-${name}`));
if (status) console.log(`     the page's faults: ${JSON.stringify(demo.faults)}\n     the node's log ends: ${await node.log()}`);
await browser.close();
await node.remove();
process.exit(status);
