/** What a stage's program said, made into numbers: pure, so that a lab need not boot to try it. */
import { plain } from './console.ts';

export interface Verdict {
  readonly passed: number;
  readonly failed: number;
  /** Each with its reason. */
  readonly skipped: readonly string[];
  /** What is worth a line in the summary. */
  readonly notes: readonly string[];
}

const failure = (note: string): Verdict => ({ passed: 0, failed: 1, skipped: [], notes: [note] });

/** Of the programs in kernel/checks: "ok NAME", "FAIL NAME" and "skip NAME: REASON", and a last line with the counts, without which it did not come to its end. */
export function checksVerdict(output: readonly string[], code: number): Verdict {
  const ended = output.map((line) => /^(\d+) passed, (\d+) failed$/.exec(line)).findLast((match) => match !== null);
  const failed = output.flatMap((line) => /^ *FAIL (.*)/.exec(line)?.[1] ?? []);
  if (!ended) return failure(`ended with ${code} in the middle: ${output.at(-1) ?? 'without a word'}`);
  const skipped = output.flatMap((line) => /^ *skip (.*)/.exec(line)?.[1] ?? []);
  const count = Math.max(Number(ended[2]), failed.length, code === 0 ? 0 : 1);
  return { passed: Number(ended[1]), failed: count, skipped, notes: failed };
}

/** Of node's test runner, by its spec reporter. A skip that `mustRun` matches is a failure: the lab is there so that nothing skips for want of a kernel. */
export function testsVerdict(output: readonly string[], code: number, mustRun: RegExp): Verdict {
  const lines = output.map(plain);
  const count = (name: string): number | undefined => {
    const found = lines.map((line) => new RegExp(`^ℹ ${name} (\\d+)$`).exec(line)).findLast((match) => match !== null);
    return found ? Number(found[1]) : undefined;
  };
  const passed = count('pass');
  if (passed === undefined) return failure(`ended with ${code} in the middle: ${lines.at(-1) ?? 'without a word'}`);
  if ((count('tests') ?? 0) === 0) return failure('there is no test');
  const skipped = lines.flatMap((line) => /^ *﹣ (.*)/.exec(line)?.[1] ?? []);
  const wrongly = skipped.filter((line) => mustRun.test(line));
  const broken = [...new Set(lines.flatMap((line) => /^ *✖ (.*?)(?: \([\d.]+ms\))?$/.exec(line)?.[1] ?? []))];
  const failed = Math.max((count('fail') ?? 0) + (count('cancelled') ?? 0), code === 0 ? 0 : 1) + wrongly.length;
  const notes = [
    ...broken.filter((name) => name !== 'failing tests:'),
    ...wrongly.map((line) => `skipped in the lab: ${line}`),
  ];
  return { passed, failed, skipped: skipped.filter((line) => !wrongly.includes(line)), notes: failed > 0 ? notes : [] };
}

/** Of a program whose output has to have certain lines. */
export function linesVerdict(output: readonly string[], code: number, wanted: readonly RegExp[]): Verdict {
  const lines = output.map(plain);
  const missing = wanted.filter((pattern) => !lines.some((line) => pattern.test(line)));
  const notes = [
    ...(code === 0 ? [] : [`ended with ${code}`]),
    ...missing.map((pattern) => `no line ${String(pattern)}`),
  ];
  return { passed: wanted.length - missing.length, failed: missing.length + (code === 0 ? 0 : 1), skipped: [], notes };
}
