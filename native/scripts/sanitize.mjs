// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer, and runs the native tests on that build.
//
//   node native/scripts/sanitize.mjs [arguments of `node --test`]
//
// Node itself is not built that way, so the runtime comes in by LD_PRELOAD, and leaks are not looked for: what V8 still holds at the
// end would drown ours. Descriptors that leak are the tests' own matter.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNode } from './node-headers.mjs';

const room = dirname(dirname(fileURLToPath(import.meta.url)));
const { binary } = findNode(createRequire(join(room, 'package.json')));

const build = spawnSync(binary, [join(room, 'scripts/build.mjs'), '--sanitize'], { stdio: 'inherit' });
if (build.status !== 0) process.exit(build.status ?? 1);

function runtime(name) {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  const path = stdout.trim();
  if (path === '' || path === name) {
    console.error(`native: g++ has no ${name}: install its sanitizer runtimes`);
    process.exit(1);
  }
  return path;
}

const tests = readdirSync(join(room, 'test'))
  .filter((name) => name.endsWith('.test.ts'))
  .map((name) => join(room, 'test', name));
const run = spawnSync(binary, ['--test', '--test-concurrency=2', ...process.argv.slice(2), ...tests], {
  stdio: 'inherit',
  env: {
    ...process.env,
    PAGEWAKE_NATIVE_ADDON: join(room, 'build-asan/build/Release/pagewake_native.node'),
    // libstdc++ too: the runtime looks for its exceptions at start, and Node brings a libstdc++ of its own, linked in.
    LD_PRELOAD: `${runtime('libasan.so')} ${runtime('libstdc++.so')}`,
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  },
});
process.exit(run.status ?? 1);
