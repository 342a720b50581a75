/** The kernel's configuration as this room writes it down (kernel/config), and whether a `.config` has it. */

export interface KernelConfig {
  readonly on: readonly string[];
  readonly off: readonly string[];
}

const OPTION = /^-?[A-Z0-9_]+$/;

export function parseKernelConfig(text: string): KernelConfig {
  const on: string[] = [];
  const off: string[] = [];
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (!OPTION.test(line)) throw new Error(`kernel/config:${index + 1}: "${line}" is no option`);
    if (line.startsWith('-')) off.push(line.slice(1));
    else on.push(line);
  }
  const twice = [...on, ...off].find((option, index, all) => all.indexOf(option) !== index);
  if (twice !== undefined) throw new Error(`kernel/config: ${twice} is there twice`);
  return { on, off };
}

/** For the kernel's own `scripts/config`. */
export function configArguments({ on, off }: KernelConfig): string[] {
  return [...on.flatMap((option) => ['-e', option]), ...off.flatMap((option) => ['-d', option])];
}

/** What `make olddefconfig` did not leave as it was asked for: an option whose own needs are not met, or that this kernel does not know. */
export function notTaken({ on, off }: KernelConfig, dotConfig: string): string[] {
  const set = new Set([...dotConfig.matchAll(/^CONFIG_(\w+)=y$/gm)].map((match) => match[1]));
  return [...on.filter((option) => !set.has(option)), ...off.filter((option) => set.has(option)).map((o) => `-${o}`)];
}
