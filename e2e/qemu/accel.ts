/** Whether this machine runs stock guests under KVM: found by booting one, once a boot of the machine. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE_FOLDER } from './cache.ts';
import { guestImage } from './guest.ts';
import type { QemuParts } from './install.ts';

export type Accel = 'tcg' | 'kvm';

const PROBE_MS = 15_000;
const NOTED = join(CACHE_FOLDER, 'accel');

/** `/dev/kvm` may be there, and a guest's first instructions be too much for what lies below it. */
function kvmBoots(parts: QemuParts): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return false;
  }
  const { kernel, initrd } = guestImage(parts);
  // An option that the guest does not know: it says so and ends, and QEMU with it.
  const { stdout } = spawnSync(
    parts.qemu,
    [
      ...['-accel', 'kvm', '-m', '128', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-kernel', kernel, '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1 pw.probe=1'],
      ...['-monitor', 'none', '-serial', 'stdio'],
    ],
    { encoding: 'utf8', timeout: PROBE_MS, killSignal: 'SIGKILL', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return stdout.includes('"event":"died","what":"probe"');
}

/** KVM where it runs stock guests, else TCG; PAGEWAKE_QEMU_ACCEL (kvm, tcg) decides without looking. */
export function accelOf(parts: QemuParts): Accel {
  const asked = process.env['PAGEWAKE_QEMU_ACCEL'];
  if (asked === 'kvm' || asked === 'tcg') return asked;
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  try {
    const [when, accel] = readFileSync(NOTED, 'utf8').split(' ');
    if (when === boot && (accel === 'kvm' || accel === 'tcg')) return accel;
  } catch {
    // Not looked yet.
  }
  const accel = kvmBoots(parts) ? 'kvm' : 'tcg';
  writeFileSync(NOTED, `${boot} ${accel}`);
  return accel;
}
