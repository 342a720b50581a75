/** Numbers for people. */
import type { MigrationSummary, Rates } from '../view.ts';

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

export function bytes(value: number): string {
  let unit = 0;
  let scaled = value;
  while (scaled >= 1024 && unit < BYTE_UNITS.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${unit === 0 ? String(Math.round(scaled)) : scaled.toFixed(scaled < 10 ? 1 : 0)} ${BYTE_UNITS[unit] ?? ''}`;
}

export function duration(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  return ms < 60_000
    ? `${(ms / 1000).toFixed(1)} s`
    : `${String(Math.floor(ms / 60_000))} min ${String(Math.round((ms % 60_000) / 1000))} s`;
}

export function microseconds(us: number): string {
  return us < 1000 ? `${us.toFixed(0)} us` : duration(us / 1000);
}

/** Rounded down: 100 % is said only when it is so. */
export function percent(part: number, whole: number): string {
  return whole === 0 ? '0 %' : `${String(Math.floor((100 * part) / whole))} %`;
}

/** "filling  61 %  159744/262144 pages  118 MiB/s  2311 faults/s  stall p50 180 us p99 2.4 ms". */
export function progressLine(now: MigrationSummary, rates: Rates): string {
  const { pages, faults } = now;
  return [
    now.phase.padEnd(11),
    percent(pages.present, pages.total).padStart(5),
    `${String(pages.present)}/${String(pages.total)} pages`,
    `${bytes(rates.bytesPerSecond)}/s`,
    `${rates.pagesPerSecond.toFixed(0)} pages/s`,
    `${rates.faultsPerSecond.toFixed(0)} faults/s`,
    `stall p50 ${microseconds(faults.stallP50Us)} p99 ${microseconds(faults.stallP99Us)}`,
  ].join('  ');
}
