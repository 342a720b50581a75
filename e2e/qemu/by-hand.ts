/** For a shell that starts a QEMU by hand, as docs/qemu.md does: `eval "$(node scripts/run.mjs e2e/qemu/by-hand.ts)"` sets KERNEL, INITRD, APPEND, ACCEL. */
import { accelOf } from './accel.ts';
import { guestImage, kernelCommandLine } from './guest.ts';
import { qemuLab } from './install.ts';

const lab = qemuLab();
if (lab.reason === undefined) {
  const append = kernelCommandLine({ memMiB: 96, pagesPerS: 5000 });
  const values = { ...guestImage(lab.parts), append, accel: accelOf(lab.parts) };
  for (const [name, value] of Object.entries(values)) process.stdout.write(`${name.toUpperCase()}='${value}'\n`);
} else {
  process.stderr.write(`${lab.reason}\n`);
  process.exitCode = 1;
}
