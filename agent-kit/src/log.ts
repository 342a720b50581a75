import { destination, pino, stdTimeFunctions, type Logger } from 'pino';
import type { LOG_LEVELS } from './config.ts';

export type LogLevel = (typeof LOG_LEVELS)[number];
export type { Logger } from 'pino';

/** One JSON object a line on standard error. Synchronous: the last line before an exit is the one that is needed. */
export function createLogger(name: string, level: LogLevel): Logger {
  return pino(
    {
      name,
      level,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), bindings: ({ pid }) => ({ name, pid: Number(pid) }) },
    },
    destination({ dest: 2, sync: true }),
  );
}
