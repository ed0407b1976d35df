// Runs what the documents show in JavaScript, Python, JSON and YAML; their shell blocks are the suite `docs`.
//
// * A `js` block declares one `async function`. One of `(token)` is a page's: it runs in Chromium, on a page of the node's
//   origin, with `show`, `hide`, `reloadFromHistory`, `freshToken` and `stop` from here. One of `(url, token, storage)` runs in Node.
// * A `python` block runs by itself, with URL, KEY, ADA and BOB, while notifications are published to both; it has to print one.
// * A `json` block holds one document in each line, or one over many; a `yaml` block is a configuration.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { launch, pageOf } from './lib/browser.mjs';
import { equal, holds, run } from './lib/cases.mjs';
import { KEY, Node, token } from './lib/node.mjs';

/** A snippet shows what it has to show within this. */
const SHOWN_MS = 40_000;
const PUBLISH_MS = 250;

const node = await Node.start();
const browser = await launch();
let published = 0;

const publish = () => node.publish({ id: `snippet-${published += 1}`, users: ['ada', 'bob'], data: { order: published } });

/** The fenced blocks of a document: language, text, and the line where the text begins. */
function blocksOf(document) {
  const blocks = [];
  let open;
  document.split('\n').forEach((line, index) => {
    const fence = /^```(\w*)/.exec(line);
    if (!fence) open?.lines.push(line);
    else if (open) {
      blocks.push({ ...open, text: open.lines.join('\n') });
      open = undefined;
    } else open = { language: fence[1], line: index + 2, lines: [] };
  });
  return blocks;
}

async function documents() {
  const found = (await readdir('docs', { recursive: true })).filter(name => name.endsWith('.md')).sort();
  return ['README.md', ...found.map(name => join('docs', name))];
}

/** Publishes again and again until `done`; what it waited for, or a failure that tells `state`. */
async function publishUntil(done, state) {
  const end = performance.now() + SHOWN_MS;
  while (!await done()) {
    holds(performance.now() < end, `nothing shown within ${SHOWN_MS} ms: ${JSON.stringify(await state())}`);
    await publish();
    await new Promise(resolve => setTimeout(resolve, PUBLISH_MS));
  }
}

async function python(text) {
  const environment = { ...process.env, URL: node.url, KEY, ADA: token('ada'), BOB: token('bob'), PYTHONUNBUFFERED: '1' };
  const child = spawn(process.env.POSTRIDER_PYTHON ?? 'python3', ['-c', text], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  let out = '';
  let wrong = '';
  child.stdout.on('data', bytes => { out += bytes; });
  child.stderr.on('data', bytes => { wrong += bytes; });
  try {
    await publishUntil(() => {
      holds(child.exitCode === null, `ended with ${child.exitCode}: ${wrong}`);
      return out.includes(`snippet-${published}`);
    }, () => ({ out, wrong }));
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

/** A page's client: it shows what comes, hides what was read elsewhere, and goes on after the node was away. */
async function inPage(name, text) {
  const page = await pageOf(browser, node.url);
  try {
    await page.evaluate(([text, name, token]) => {
      window.seen = { shown: [], hidden: [], stopped: [] };
      Object.assign(window, {
        reloadFromHistory: () => {},
        freshToken: () => token,
        stop: reason => window.seen.stopped.push(reason),
      });
      // This node has no TLS.
      window.eval(`${text.replaceAll('wss://', 'ws://')}\nwindow.client = ${name};`);
      // One that has its own is heard all the same.
      const { show, hide } = window;
      window.show = entry => { window.seen.shown.push(entry.id); show?.(entry); };
      window.hide = id => { window.seen.hidden.push(id); hide?.(id); };
      return window.client(token);
    }, [text, name, token('ada')]);
    const seen = () => page.evaluate(() => window.seen);
    const shows = async () => (await seen()).shown.includes(`snippet-${published}`);
    await publishUntil(shows, seen);

    const read = `snippet-${published}`;
    await fetch(`${node.url}/v1/inbox/read`, {
      method: 'POST', headers: { Authorization: `Bearer ${token('ada')}`, 'Content-Type': 'application/json' }, body: JSON.stringify({ ids: [read] }),
    });
    await publishUntil(async () => (await seen()).hidden.includes(read), seen);

    await node.kill();
    await node.start();
    await publishUntil(shows, seen);
    equal((await seen()).stopped, [], 'stopped');
  } finally {
    await page.context().close();
  }
}

/** A client that wakes now and then: what it has shown it does not show again. */
async function inNode(name, text) {
  const path = join(node.folder, `${name}.mjs`);
  await writeFile(path, `${text}\nexport { ${name} };\n`);
  const client = (await import(path))[name];
  const kept = new Map();
  const storage = { get: key => kept.get(key), set: (key, value) => { kept.set(key, value); } };
  const first = await publish();
  holds((await client(node.url, token('ada'), storage)).some(entry => entry.id === first), 'what was there is shown');
  const second = await publish();
  const shown = (await client(node.url, token('ada'), storage)).map(entry => entry.id);
  equal(shown, [second], 'shown at the second time');
}

function json(text) {
  const whole = () => { JSON.parse(text); };
  const lines = () => text.split('\n').filter(Boolean).forEach(line => JSON.parse(line));
  try { whole(); } catch { lines(); }
}

async function yaml(text) {
  // The secrets it names are there.
  const secret = join(node.folder, 'secret');
  await writeFile(secret, KEY);
  const named = [...text.matchAll(/\benv:(\w+)/g)].map(([, name]) => [name, KEY]);
  const path = join(node.folder, 'snippet.yaml');
  await writeFile(path, text.replaceAll(/\bfile:[^\s"'}]+/g, `file:${secret}`));
  const child = spawn(process.env.POSTRIDER_BIN, ['config', 'check', '--config', path], {
    cwd: node.folder, env: { ...process.env, ...Object.fromEntries(named) }, stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stdout.on('data', bytes => { said += bytes; });
  child.stderr.on('data', bytes => { said += bytes; });
  const [status] = await once(child, 'exit');
  await rm(path);
  holds(status === 0, `config check ended with ${status}: ${said}`);
}

function javascript(text) {
  const declared = /^async function (\w+)\(([^)]*)\)/m.exec(text);
  holds(declared, 'a js block declares one async function');
  const [, name, parameters] = declared;
  return parameters.includes('storage') ? inNode(name, text) : inPage(name, text);
}

const RUNNERS = { js: javascript, python, json, yaml };

const cases = {};
for (const file of await documents()) {
  for (const { language, line, text } of blocksOf(await readFile(file, 'utf8'))) {
    if (RUNNERS[language]) cases[`${file}:${line} ${language}`] = async () => RUNNERS[language](text);
  }
}

const status = await run(cases);
await browser.close();
await node.remove();
process.exitCode = status;
