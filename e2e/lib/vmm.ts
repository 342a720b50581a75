/** A test VMM as a process, with its control socket. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { budget } from './budget.ts';
import { Control } from './control.ts';
import type { Host } from './hosts.ts';
import { Program, ROOT, type JsonLine } from './processes.ts';

export const TESTVMM = join(ROOT, 'testvmm/build/testvmm');

export interface Vmm {
  readonly program: Program;
  readonly control: Control;
  readonly controlPath: string;
}

/** @param flags as `testvmm ROLE --help` has them, without --control */
export async function startVmm(
  role: 'source' | 'destination',
  host: Host,
  folder: string,
  flags: readonly string[] = [],
): Promise<Vmm> {
  const controlPath = join(folder, `${role}-${process.pid}-${vmms++}.sock`);
  const program = new Program(`testvmm ${role}`, host, [TESTVMM, role, '--control', controlPath, ...flags]);
  await program.waitForStart('its control socket', (line) => line['event'] === 'listening');
  return { program, control: await Control.connect(controlPath), controlPath };
}

let vmms = 0;

/** The guest has filled its memory and works on it. */
export function filled(vmm: Vmm): Promise<JsonLine> {
  return vmm.program.waitFor('the guest to fill its memory', (line) => line['event'] === 'filled', budget(60_000));
}

let help: string | undefined;

/** Why the test VMM that is built here cannot be told this, or undefined. */
export function whyNoOption(word: string): string | undefined {
  help ??= execFileSync(TESTVMM, ['--help'], { encoding: 'utf8' });
  return help.includes(word) ? undefined : `testvmm has no ${word}`;
}
