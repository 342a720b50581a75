/** The shell script that runs in the lab, at the machine's own root. */

export interface ScriptOptions {
  readonly command: string;
  /** The checkout. */
  readonly root: string;
  /** What is in the caches of who started it is found in the lab too. */
  readonly home: string;
  readonly quick: boolean;
}

export const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

export function scriptOf({ command, root, home, quick }: ScriptOptions): string {
  const lines = [
    `export HOME=${quoted(home)} PAGEWAKE_LAB=1${quick ? ' PAGEWAKE_LAB_QUICK=1' : ''}`,
    `export PATH=${quoted(`${root}/node_modules/.bin`)}:"$PATH"`,
    // Quicker than a layer above 9p; not where it would hide the checkout.
    ...(root.startsWith('/tmp/') ? [] : ['mount -t tmpfs -o mode=1777 tmpfs /tmp || exit 99']),
    `cd ${quoted(root)} || exit 99`,
    command,
  ];
  return `${lines.join('\n')}\n`;
}
