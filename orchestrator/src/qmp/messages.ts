/** What QEMU sends over QMP: its greeting, replies and events, checked as they come in. */
import { z } from 'zod';

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export const greetingSchema = z.object({
  QMP: z.object({
    version: z.object({ qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }) }),
  }),
});

const replySchema = z.object({ id: z.number(), return: z.unknown() });
const errorSchema = z.object({
  id: z.number().optional(),
  error: z.object({ class: z.string(), desc: z.string() }),
});
const eventSchema = z.object({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).optional(),
  timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
});

/** The states of a migration in QEMU 8.0 to 10; a later one may know more. */
const MIGRATION_STATUSES = [
  ...['none', 'setup', 'cancelling', 'cancelled', 'active', 'postcopy-active', 'postcopy-paused'],
  ...['postcopy-recover-setup', 'postcopy-recover', 'completed', 'failed', 'colo', 'pre-switchover', 'device'],
  'wait-unplug',
] as const;
export type MigrationStatus = (typeof MIGRATION_STATUSES)[number];

/** `atMs`: Unix time by the clock of QEMU's host, with microseconds. */
export type QmpEvent =
  | { readonly type: 'stop' | 'resume' | 'shutdown'; readonly atMs: number }
  | { readonly type: 'migration'; readonly status: string; readonly atMs: number }
  | {
      readonly type: 'other';
      readonly name: string;
      readonly data: Readonly<Record<string, unknown>>;
      readonly atMs: number;
    };

export type QmpMessage =
  | { readonly type: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly type: 'error'; readonly id: number | undefined; readonly errorClass: string; readonly text: string }
  | { readonly type: 'event'; readonly event: QmpEvent };

/** Undefined: it is none of the three. */
export function readMessage(line: string): QmpMessage | undefined {
  const json = parseJson(line);
  const event = eventSchema.safeParse(json);
  if (event.success) return { type: 'event', event: readEvent(event.data) };
  const failed = errorSchema.safeParse(json);
  if (failed.success) {
    const { id, error } = failed.data;
    return { type: 'error', id, errorClass: error.class, text: error.desc };
  }
  const reply = replySchema.safeParse(json);
  return reply.success ? { type: 'reply', id: reply.data.id, value: reply.data.return } : undefined;
}

export function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function readEvent({ event: name, data = {}, timestamp }: z.infer<typeof eventSchema>): QmpEvent {
  const atMs = timestamp.seconds * 1000 + timestamp.microseconds / 1000;
  if (name === 'STOP') return { type: 'stop', atMs };
  if (name === 'RESUME') return { type: 'resume', atMs };
  if (name === 'SHUTDOWN') return { type: 'shutdown', atMs };
  const { status } = data;
  if (name === 'MIGRATION' && typeof status === 'string') return { type: 'migration', status, atMs };
  return { type: 'other', name, data, atMs };
}
