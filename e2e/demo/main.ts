/**
 * `npm start`: a real, running guest moves from one host to another while it works, and every page of it is verified. Two hosts as network
 * namespaces, both agents and both VMMs as processes, the command line as a user has it. The exit code tells the truth.
 */
import { Cleanup } from '../lib/cleanup.ts';
import { parseOptions } from './options.ts';
import { qemuDemo } from './qemu.ts';
import { testVmmDemo } from './testvmm.ts';

const options = parseOptions(process.argv.slice(2));
const cleanup = new Cleanup();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void cleanup.run().finally(() => process.exit(130)));
try {
  const wrong = await (options.qemu ? qemuDemo(options, cleanup) : testVmmDemo(options, cleanup));
  process.exitCode = wrong === 0 ? 0 : 1;
} catch (error) {
  process.stderr.write(`npm start: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await cleanup.run();
}
