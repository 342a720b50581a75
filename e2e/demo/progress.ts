/** What is printed while the guest moves: one line that is written over on a terminal, a plain line a second elsewhere. */
import type { MigrationSummary } from '@pagewake/orchestrator';

const LINE_INTERVAL_MS = 1000;
const MIB = 2 ** 20;

interface Sample {
  readonly atMs: number;
  readonly present: number;
  readonly payloadBytes: number;
  readonly faults: number;
}

export class Progress {
  readonly #out: NodeJS.WriteStream;
  #last: Sample | undefined;
  #printedAtMs = 0;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
  }

  show(summary: MigrationSummary): void {
    const nowMs = performance.now();
    const intervalMs = this.#out.isTTY ? 0 : LINE_INTERVAL_MS;
    const over = summary.phase === 'completed' || summary.phase === 'failed';
    if (!over && nowMs - this.#printedAtMs < intervalMs) return;
    this.#printedAtMs = nowMs;
    const { pages, faults } = summary;
    const sample = { atMs: nowMs, present: pages.present, payloadBytes: summary.payloadBytes, faults: faults.total };
    const rate = (read: (s: Sample) => number): number => {
      const last = this.#last;
      return last ? Math.max(0, ((read(sample) - read(last)) * 1000) / (sample.atMs - last.atMs)) : 0;
    };
    const share = pages.total === 0 ? 0 : (100 * pages.present) / pages.total;
    const line =
      `${summary.phase.padEnd(10)} ${share.toFixed(1).padStart(5)} %  ${pages.present}/${pages.total} pages  ` +
      `${(rate((s) => s.payloadBytes) / MIB).toFixed(0)} MiB/s  ${rate((s) => s.faults).toFixed(0)} faults/s  ` +
      `stall p50 ${ms(faults.stallP50Us)} p99 ${ms(faults.stallP99Us)}`;
    this.#out.write(this.#out.isTTY ? `\r\u001B[K${line}` : `${line}\n`);
    this.#last = sample;
  }

  end(): void {
    if (this.#out.isTTY && this.#last) this.#out.write('\n');
  }
}

export const ms = (microseconds: number): string => `${(microseconds / 1000).toFixed(2)} ms`;
