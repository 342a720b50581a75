/** What a VMM says is checked field by field, and refused with the field's name. */
import type { z } from 'zod';
import { GuestLayout, LayoutError, type RegionInput } from './layout.ts';

export class HandshakeError extends Error {
  override readonly name = 'HandshakeError';
}

/** @param what names the text in the error */
export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new HandshakeError(`${what} is not JSON: it begins with ${JSON.stringify(text.slice(0, 40))}`);
  }
}

/** @param whole names what has no field to name */
export function check<T>(schema: z.ZodType<T>, value: unknown, whole: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.length ? issue.path.join('.') : whole;
  throw new HandshakeError(`${path}: ${issue?.message ?? 'not as expected'}`);
}

export function layoutOf(inputs: readonly RegionInput[]): GuestLayout {
  try {
    return new GuestLayout(inputs);
  } catch (error) {
    if (error instanceof LayoutError) throw new HandshakeError(error.message);
    throw error;
  }
}

/**
 * Where the JSON array or object that `text` begins with is over: behind its last bracket. Undefined: not yet. Only what it nests counts, so a text that
 * is no JSON has its end too, and is refused there.
 */
export function endOfJson(text: string): number | undefined {
  let depth = 0;
  // A string, whole or cut off, is passed over with the brackets in it.
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*(?:"|\\?$)|[[\]{}]/gs)) {
    if (token === '[' || token === '{') depth += 1;
    else if (token === ']' || token === '}') depth -= 1;
    if (depth === 0) return index + token.length;
  }
  return undefined;
}
