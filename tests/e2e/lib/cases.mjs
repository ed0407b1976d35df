// Runs a suite's cases one by one, tells each, and counts. The last line is `N passed, N failed`.

import { limited } from './node.mjs';

const CASE_MS = 120_000;
let names = 0;

/** An id that no other case uses. */
export const user = (name = 'user') => `${name}-${names += 1}`;

export function equal(found, expected, what = 'value') {
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)];
  if (one !== other) throw new Error(`${what}: ${one} instead of ${other}`);
}

export function holds(condition, what) {
  if (!condition) throw new Error(what);
}

/** `cases`: name → async function. Those named on the command line, or all. `onFailure(name)` may keep evidence. */
export async function run(cases, onFailure = async () => {}) {
  const wanted = process.argv.slice(2);
  let passed = 0;
  let failed = 0;
  for (const [name, body] of Object.entries(cases)) {
    if (wanted.length && !wanted.includes(name)) continue;
    const started = performance.now();
    try {
      await limited(body(), CASE_MS, 'end of the case');
      passed += 1;
      console.log(`ok   ${name} (${((performance.now() - started) / 1000).toFixed(2)} s)`);
    } catch (error) {
      failed += 1;
      const place = /(?:_suite|_cases)\.mjs:(\d+)/.exec(error.stack ?? '')?.[1];
      console.log(`FAIL ${name}${place ? ` (line ${place})` : ''}: ${error.message}`);
      await onFailure(name).catch(trouble => console.log(`     ${trouble.message}`));
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed || !passed ? 1 : 0;
}
