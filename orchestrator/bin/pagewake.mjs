#!/usr/bin/env node
// Plain JavaScript that any Node since 18 can read: it may be started by the machine's own Node, which cannot run TypeScript. Then the
// Node of the npm package `node` takes over.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { useCompileCache } from './compile-cache.mjs';

const OLDEST_MAJOR = 24;
const SIGNALS = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGUSR2'];

if (Number(process.versions.node.split('.')[0]) >= OLDEST_MAJOR) {
  if (process.env.PAGEWAKE_STARTED_BY_WRAPPER === String(process.ppid)) endWithWrapper();
  useCompileCache(roleOf(process.argv.slice(2)));
  const { main } = await import('../src/cli/main.ts');
  process.exitCode = await main(process.argv.slice(2));
} else {
  runWith(packagedNode());
}

/**
 * Each agent is a program of its own; one that only says how it is used is not that program.
 * @param {string[]} argv
 */
function roleOf([name = '', ...rest]) {
  const agent = ['serve-source', 'serve-dest'].includes(name) && !rest.includes('--help') && !rest.includes('-h');
  return agent ? name : 'cli';
}

/** A wrapper that is killed with SIGKILL cannot pass anything on; its end of this channel closes, and that says it. */
function endWithWrapper() {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.channel?.unref();
}

/** @returns {string | undefined} the program in the npm package `node` */
function packagedNode() {
  try {
    const path = join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin', 'node');
    return existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}

/** @param {string | undefined} node */
function runWith(node) {
  if (node === undefined) {
    process.stderr.write(
      `pagewake: Node ${OLDEST_MAJOR} or later is needed, this is ${process.version}; run \`npm install\` where pagewake is, which brings one\n`,
    );
    process.exitCode = 1;
    return;
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, PAGEWAKE_STARTED_BY_WRAPPER: String(process.pid) },
  });
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      // A terminal sends its Ctrl-C to both of us, and a second one means "at once" to an agent.
      if (signal === 'SIGINT' && process.stdin.isTTY) return;
      child.kill(signal);
    });
  }
  child.on('error', (error) => {
    process.stderr.write(`pagewake: cannot start ${node}: ${error.message}\n`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
  });
}
