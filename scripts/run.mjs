/**
 * Sets up, then runs a program of the project with the project's own Node: `node scripts/run.mjs SCRIPT [ARG ...]`, under any Node from 20 on. Passes
 * signals and the exit code through. `--help` sets nothing up.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileCacheFolder, isDecided } from '../orchestrator/bin/compile-cache.mjs';
import { setUp } from './setup.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const [script, ...args] = process.argv.slice(2);
if (script === undefined) {
  process.stderr.write('usage: node scripts/run.mjs SCRIPT [ARG ...]\n');
  process.exit(2);
}

const bin = join(ROOT, 'node_modules', '.bin');
const tests = script === 'scripts/test.ts';
// Who only asks what there is gets an answer, and no packages.
const asks = !tests && (args.includes('--help') || args.includes('-h'));
if (asks && !existsSync(join(bin, 'node'))) {
  process.stderr.write(
    'nothing is set up here yet, and --help needs its npm packages; npm run setup does it, so does the same command without --help\n',
  );
  process.exit(1);
}
if (!asks)
  setUp({ tests, vm: tests || script.includes('qemu') || script.startsWith('lab/') || args.includes('--qemu') });
// Some hundred processes of tests load the same files. Agents that are shown or measured choose for themselves, as they do for a user.
const compiled = tests && !isDecided(process.env) ? compileCacheFolder() : undefined;
const cache = compiled === undefined ? {} : { NODE_COMPILE_CACHE: join(compiled, 'tests') };
const child = spawn(join(bin, 'node'), [join(ROOT, script), ...args], {
  cwd: ROOT,
  stdio: 'inherit',
  // npm puts the folder on PATH only where it exists already, which on a fresh machine it did not.
  env: { ...process.env, ...cache, PATH: `${bin}${delimiter}${process.env.PATH ?? ''}` },
});
process.on('SIGTERM', () => child.kill('SIGTERM'));
// A terminal sends it to the whole group: passed on, it would come twice, and twice means "at once".
process.on('SIGINT', () => undefined);
child.on('exit', (code, signal) => {
  process.exitCode = code ?? 128 + (signal ? constants.signals[signal] : 0);
});
