// Builds pagewake-shim.so if anything changed, and says so in one line. Plain JavaScript: also runs on the Node that a base image brings.
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

const room = fileURLToPath(new URL('..', import.meta.url));
const binary = `${room}build/pagewake-shim.so`;

const modified = () => statSync(binary, { throwIfNoEntry: false })?.mtimeMs ?? 0;
const before = modified();
const make = spawnSync('make', [`-j${availableParallelism()}`], { cwd: room, encoding: 'utf8' });

if (make.error) {
  console.error(`shim: cannot run make (${make.error.message}); install make and a C compiler (gcc)`);
  process.exitCode = 1;
} else if (make.status !== 0) {
  console.error(`${make.stderr}shim: the build failed (the compiler's words are above)`);
  process.exitCode = 1;
} else {
  console.log(`shim: ${modified() === before ? 'up to date' : 'built'}, ${binary}`);
}
