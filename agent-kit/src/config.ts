/**
 * Configuration of a program from one zod schema: every key is a config file key (`logLevel`), an environment variable
 * (`PAGEWAKE_LOG_LEVEL`) and a flag (`--log-level`). Rising precedence: file, environment, flag. Whatever is wrong is told
 * with its value, where it came from and what is allowed.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError, Option } from 'commander';
import { z } from 'zod';
import { messageOf, UserError } from './errors.ts';

export interface ProgramSpec<S extends z.ZodObject> {
  /** As the user types it: "pagewake serve-source". */
  readonly name: string;
  readonly summary: string;
  /** A flat object; each field made with `option`. */
  readonly schema: S;
  /** Whole command lines for `--help`, at least one. */
  readonly examples: readonly string[];
}

export type Loaded<T> =
  { readonly kind: 'config'; readonly config: T } | { readonly kind: 'help'; readonly text: string };

/** Wrong configuration: exit code 2, one line for each wrong value. */
export class ConfigError extends UserError {
  override readonly name = 'ConfigError';

  constructor(lines: readonly string[], options?: ErrorOptions) {
    super(lines.join('\n'), 2, options);
  }
}

/** Gives a field its help text and the placeholder of its flag. Must be the outermost call: zod ties it to the instance. */
export function option<F extends z.ZodType>(field: F, help: string, placeholder = 'value'): F {
  return field.meta({ description: help, placeholder });
}

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** Fields that every daemon has. */
export const commonFields = {
  logLevel: option(z.enum(LOG_LEVELS).default('info'), 'how much to log on standard error', 'level'),
};

/** Fields of a program that serves gRPC. */
export const serverFields = {
  tlsCert: option(z.string().min(1).optional(), 'certificate (chain) to serve with, PEM', 'file'),
  tlsKey: option(z.string().min(1).optional(), 'its private key, PEM', 'file'),
  tlsCa: option(z.string().min(1).optional(), 'authorities that client certificates must come from: mTLS', 'file'),
  insecurePlaintext: option(z.boolean().default(false), 'accept plaintext gRPC beyond loopback'),
};

interface Field {
  readonly key: string;
  readonly flag: string;
  readonly variable: string;
  readonly schema: z.ZodType;
  readonly inner: z.ZodType;
}

/** A raw value and the words for where it came from. */
interface Given {
  readonly value: unknown;
  readonly from: string;
}

export function loadConfig<S extends z.ZodObject>(
  spec: ProgramSpec<S>,
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): Loaded<z.output<S>> {
  const fields = Object.entries(spec.schema.shape).map(([key, schema]) => field(key, schema as z.ZodType));
  const parsed = parseFlags(spec, fields, argv);
  if (typeof parsed === 'string') return { kind: 'help', text: parsed };

  const wrong: string[] = [];
  const given = new Map<string, Given>();
  const file = parsed['config'] ?? env['PAGEWAKE_CONFIG'];
  if (typeof file === 'string') readFile(file, fields, given, wrong);
  for (const f of fields) {
    const variable = env[f.variable];
    // An empty variable means "not set": that is how compose files and units pass optional values on.
    if (variable !== undefined && variable !== '') {
      given.set(f.key, { value: fromText(f.inner, variable), from: `environment variable ${f.variable}` });
    }
    const flag = parsed[f.key];
    if (flag !== undefined) {
      given.set(f.key, { value: typeof flag === 'string' ? fromText(f.inner, flag) : flag, from: f.flag });
    }
  }

  const result = spec.schema.safeParse(Object.fromEntries([...given].map(([key, { value }]) => [key, value])));
  if (!result.success) wrong.push(...result.error.issues.map((issue) => complaint(issue, fields, given)));
  if (wrong.length > 0) throw new ConfigError(wrong);
  return { kind: 'config', config: result.data as z.output<S> };
}

function field(key: string, schema: z.ZodType): Field {
  const kebab = key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return {
    key,
    flag: `--${kebab}`,
    variable: `PAGEWAKE_${kebab.replaceAll('-', '_').toUpperCase()}`,
    schema,
    inner: innerType(schema),
  };
}

function innerType(schema: z.ZodType): z.ZodType {
  let inner = schema;
  while (inner instanceof z.ZodOptional || inner instanceof z.ZodDefault) inner = inner.unwrap() as z.ZodType;
  return inner;
}

/** The help text, or the flags as given by key. */
function parseFlags(
  spec: ProgramSpec<z.ZodObject>,
  fields: readonly Field[],
  argv: readonly string[],
): string | Record<string, unknown> {
  let help = '';
  const command = new Command(spec.name)
    .description(spec.summary)
    .exitOverride()
    .configureOutput({ writeOut: (text) => (help += text), writeErr: () => undefined })
    .allowExcessArguments(false)
    .option('--config <file>', 'JSON file with the same settings (PAGEWAKE_CONFIG)');
  for (const f of fields) addOption(command, f);
  command.addHelpText('after', `\nExample:\n${spec.examples.map((line) => `  $ ${line}`).join('\n')}`);
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return help;
    const text = messageOf(error).replace(/^error: /, '');
    throw new ConfigError([`${text}; see ${spec.name} --help`], { cause: error });
  }
  return command.opts();
}

function addOption(command: Command, f: Field): void {
  const meta = f.schema.meta();
  const initial = f.schema instanceof z.ZodDefault ? f.schema.parse(undefined) : undefined;
  const notes = [
    ...(f.inner instanceof z.ZodEnum ? [f.inner.options.join(', ')] : []),
    ...(initial === undefined || initial === false ? [] : [`default: ${JSON.stringify(initial)}`]),
    f.variable,
  ];
  const help = `${meta?.description ?? ''} (${notes.join('; ')})`;
  if (f.inner instanceof z.ZodBoolean) {
    command.option(f.flag, help);
    // So that a flag can also take back what a file or variable switched on.
    command.addOption(new Option(f.flag.replace('--', '--no-')).hideHelp());
  } else {
    const placeholder = meta?.['placeholder'];
    command.option(`${f.flag} <${typeof placeholder === 'string' ? placeholder : 'value'}>`, help);
  }
}

function readFile(path: string, fields: readonly Field[], given: Map<string, Given>, wrong: string[]): void {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new ConfigError([`config file ${path}: cannot be read as JSON: ${messageOf(error)}`], { cause: error });
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new ConfigError([`config file ${path}: must hold one JSON object`]);
  }
  const known = fields.map((f) => f.key);
  for (const [key, value] of Object.entries(content)) {
    if (known.includes(key)) given.set(key, { value, from: `config file ${path}, key "${key}"` });
    else wrong.push(`config file ${path}: unknown key "${key}"; allowed: ${known.join(', ')}`);
  }
}

/** Flags and variables are text; what cannot be converted stays text and fails in the schema, with its value. */
function fromText(inner: z.ZodType, text: string): unknown {
  if (inner instanceof z.ZodBoolean) {
    const word = text.toLowerCase();
    return word === 'true' || word === '1' ? true : word === 'false' || word === '0' ? false : text;
  }
  if (inner instanceof z.ZodNumber) return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
  return text;
}

function complaint(issue: z.core.$ZodIssue, fields: readonly Field[], given: ReadonlyMap<string, Given>): string {
  const key = String(issue.path[0] ?? '');
  const f = fields.find((candidate) => candidate.key === key);
  const value = given.get(key);
  if (f === undefined) return issue.message;
  if (value === undefined) return `${f.flag} is needed: ${f.schema.meta()?.description ?? issue.message}`;
  return `${value.from}: ${JSON.stringify(value.value)} is not allowed; ${allowed(f.inner, issue)}`;
}

function allowed(inner: z.ZodType, issue: z.core.$ZodIssue): string {
  if (inner instanceof z.ZodEnum) return `allowed: ${inner.options.join(', ')}`;
  if (inner instanceof z.ZodBoolean) return 'allowed: true, false';
  return issue.message;
}
