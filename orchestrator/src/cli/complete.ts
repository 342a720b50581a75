/**
 * Shell completion. The glue for each shell is @bomb.sh/tab's; what it asks for is answered from commander's own tree, so that a new option is
 * completed without a word here.
 */
import { script } from '@bomb.sh/tab';
import { Argument, type Command, type Option } from 'commander';
import type { CliContext } from './context.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** What the glue is told after the candidates, as in cobra: 4 means that file names are no answer. */
const FILES = ':0';
const NO_FILES = ':4';
/** Placeholders of values that are files. */
const FILE_VALUE = /<(file|dir)>/;

const EXAMPLES = `
Examples:
  $ pagewake completion bash > ~/.local/share/bash-completion/completions/pagewake
  $ pagewake completion fish > ~/.config/fish/completions/pagewake.fish`;

/** The glue for bash takes its words from the package bash-completion, which small machines lack. */
const WITHOUT_BASH_COMPLETION = `
if ! declare -F _get_comp_words_by_ref >/dev/null; then
  _get_comp_words_by_ref() {
    words=("\${COMP_WORDS[@]}")
    cword=$COMP_CWORD
    cur=\${COMP_WORDS[COMP_CWORD]}
    prev=\${COMP_WORDS[COMP_CWORD - 1]}
  }
fi
`;

export function addCompletion(program: Command, cli: CliContext): void {
  program
    .command('completion')
    .description('print a script that completes pagewake’s commands and options in a shell')
    .addArgument(new Argument('<shell>', 'bash, zsh, or fish').choices(SHELLS))
    .addHelpText('after', EXAMPLES)
    .action((shell: string) => cli.terminal.out(shellScript(shell)));
  // What the scripts call: pagewake complete -- WORDS
  program
    .command('complete', { hidden: true })
    .argument('[words...]')
    .action((words: readonly string[]) => cli.terminal.out(answer(program, words)));
}

/** The library writes to standard output itself. */
function shellScript(shell: string): string {
  const lines: string[] = [];
  const { log } = console;
  console.log = (text: string) => void lines.push(text);
  try {
    script(shell, 'pagewake', 'pagewake');
  } finally {
    console.log = log;
  }
  const glue = `${lines.join('\n')}\n`;
  return shell === 'bash' ? again(glue) + WITHOUT_BASH_COMPLETION : glue;
}

/** Its constants are read-only and not ours alone: a second sourcing, or another program's script from the same maker, would be an error for each. */
function again(glue: string): string {
  return glue.replaceAll(/^readonly (?=ShellComp)/gm, '').replaceAll('ShellCompDirective', '__pagewake_directive_');
}

/** Lines of candidate and description for the last of `words`, and a word on file names. Exported for its test. */
export function answer(program: Command, words: readonly string[]): string {
  const typed = words.at(-1) ?? '';
  const { command, valueOf } = walk(program, words.slice(0, -1));
  const [flag, begun] = splitAssignment(typed);
  if (flag !== undefined) return values(optionOf(command, flag), begun, `${flag}=`);
  if (valueOf !== undefined) return values(valueOf, typed, '');
  const candidates = typed.startsWith('-')
    ? command
        .createHelp()
        .visibleOptions(command)
        .flatMap(({ long, description }) => (long ? [{ value: long, description }] : []))
    : [
        ...command
          .createHelp()
          .visibleCommands(command)
          .map((sub) => ({ value: sub.name(), description: sub.description() })),
        ...(command.registeredArguments[0]?.argChoices ?? []).map((value) => ({ value, description: '' })),
      ];
  return reply(candidates, typed, NO_FILES);
}

/** Which command the words lead to, and the option that waits for its value after them. */
function walk(program: Command, words: readonly string[]): { command: Command; valueOf: Option | undefined } {
  let command = program;
  let valueOf: Option | undefined;
  for (const word of words) {
    if (valueOf !== undefined) {
      valueOf = undefined;
    } else if (word.startsWith('-')) {
      const option = optionOf(command, word);
      valueOf = option !== undefined && (option.required || option.optional) ? option : undefined;
    } else {
      command = command.commands.find((sub) => sub.name() === word) ?? command;
    }
  }
  return { command, valueOf };
}

const optionOf = (command: Command, flag: string): Option | undefined =>
  command.options.find(({ long, short }) => flag === long || flag === short);

/** `--mode=e`: the flag, and what there is of its value. */
function splitAssignment(word: string): readonly [flag: string | undefined, begun: string] {
  const match = /^(--[^=]+)=(.*)$/s.exec(word);
  return match === null ? [undefined, ''] : [match[1], match[2] ?? ''];
}

function values(option: Option | undefined, begun: string, before: string): string {
  if (option === undefined) return `${NO_FILES}\n`;
  const candidates = (option.argChoices ?? []).map((value) => ({ value: before + value, description: '' }));
  return reply(candidates, before + begun, FILE_VALUE.test(option.flags) ? FILES : NO_FILES);
}

function reply(
  candidates: readonly { readonly value: string; readonly description: string }[],
  typed: string,
  files: string,
): string {
  const fitting = candidates.filter(({ value }) => value.startsWith(typed));
  // One line a candidate, whatever is in its description.
  const lines = fitting.map(({ value, description }) => `${value}\t${description.replaceAll(/\s+/g, ' ')}`);
  return [...lines, files, ''].join('\n');
}
