// Builds the library and the tests' program with AddressSanitizer and UndefinedBehaviorSanitizer, and runs the tests on that build. QEMU itself
// is not built that way: its tests are skipped.
//
//   node shim/scripts/sanitize.mjs [arguments of `node --test`]
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const room = fileURLToPath(new URL('..', import.meta.url));

const make = spawnSync('make', ['SANITIZE=address,undefined', 'BUILD=build/asan'], { cwd: room, encoding: 'utf8' });
if (make.status !== 0) {
  console.error(`${make.stderr ?? make.error?.message}shim: the sanitizer build failed`);
  process.exit(1);
}

/** It comes before the library: what the library is built with has to be there when it is loaded. */
const runtime = spawnSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout?.trim() ?? '';
if (!runtime.includes('/')) {
  console.error('shim: gcc has no libasan.so: install its sanitizer runtimes');
  process.exit(1);
}

const tests = readdirSync(join(room, 'test'))
  .filter((name) => name.endsWith('.test.ts'))
  .map((name) => join(room, 'test', name));
const run = spawnSync(process.execPath, ['--test', '--test-concurrency=2', ...process.argv.slice(2), ...tests], {
  stdio: 'inherit',
  env: {
    ...process.env,
    PAGEWAKE_SHIM_BUILD: join(room, 'build/asan'),
    PAGEWAKE_SHIM_RUNTIME: runtime,
    // Leaks: the programs that the tests start end without tidying up, and are not all ours.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  },
});
process.exit(run.status ?? 1);
