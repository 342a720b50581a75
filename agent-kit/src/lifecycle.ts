/** From argv to exit code: configuration, logger, signals, and errors as one line instead of a stack trace. */
import type { z } from 'zod';
import { loadConfig, type ProgramSpec } from './config.ts';
import { messageOf, UserError } from './errors.ts';
import { createLogger, type Logger, type LogLevel } from './log.ts';

export interface Life {
  readonly log: Logger;
  /** Aborted by SIGINT or SIGTERM: end in good order. */
  readonly stop: AbortSignal;
}

const EXIT_INTERRUPTED = 130;
/** sysexits.h EX_SOFTWARE: the state is unknown after an error that nobody caught. */
const EXIT_SOFTWARE = 70;

/**
 * Runs a program and returns its exit code: 0 to 255 from `main`, 2 for wrong usage, 1 for anything else.
 * Never rejects.
 */
export async function runProgram<S extends z.ZodObject & z.ZodType<{ logLevel: LogLevel }>>(
  spec: ProgramSpec<S>,
  argv: readonly string[],
  main: (config: z.output<S>, life: Life) => Promise<number>,
): Promise<number> {
  let logLevel: LogLevel = 'info';
  try {
    const loaded = loadConfig(spec, argv);
    if (loaded.kind === 'help') {
      process.stdout.write(loaded.text);
      return 0;
    }
    logLevel = loaded.config.logLevel;
    const log = createLogger(spec.name, logLevel);
    return await untilStopped(log, (stop) => main(loaded.config, { log, stop }));
  } catch (error) {
    return report(spec.name, error, logLevel);
  }
}

/** Resolves once the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

async function untilStopped(log: Logger, main: (stop: AbortSignal) => Promise<number>): Promise<number> {
  const stop = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    // The second one means that the first was not quick enough.
    if (stop.signal.aborted) process.exit(EXIT_INTERRUPTED);
    log.info({ signal }, 'stopping');
    stop.abort();
  };
  const onUncaught = (error: unknown): void => {
    log.fatal({ err: log.isLevelEnabled('debug') ? error : messageOf(error) }, 'uncaught error, giving up');
    process.exit(EXIT_SOFTWARE);
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  process.on('uncaughtException', onUncaught);
  try {
    return await main(stop.signal);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal).off('uncaughtException', onUncaught);
  }
}

function report(name: string, error: unknown, logLevel: LogLevel): number {
  for (const line of messageOf(error).split('\n')) process.stderr.write(`${name}: ${line}\n`);
  if ((logLevel === 'debug' || logLevel === 'trace') && error instanceof Error) {
    process.stderr.write(`${error.stack ?? ''}\n`);
  }
  return error instanceof UserError ? error.exitCode : 1;
}
