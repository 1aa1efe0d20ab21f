import { PgError } from '../mdm/error.ts';

/**
 * The part of Go's text/template that Docker's users type after `--format`: fields, pipelines, variables-free `range`, `if`,
 * `with`, `else`, `end`, and the functions json, join, split, lower, upper, title, len, index, printf, println, eq, ne, not, and, or.
 */
export function renderTemplate(template: string, data: unknown): string {
  const parser = new Parser(tokenize(template));
  const nodes = parser.block(['']);
  return nodes.map((node) => renderNode(node, data, data)).join('');
}

type Node =
  | { kind: 'text'; text: string }
  | { kind: 'value'; pipeline: Pipeline; text: string }
  | { kind: 'range' | 'if' | 'with'; pipeline: Pipeline; then: Node[]; otherwise: Node[] };
type Pipeline = Operand[][];
type Operand =
  | { kind: 'field'; path: string[]; rootVar: boolean }
  | { kind: 'literal'; value: unknown }
  | { kind: 'name'; name: string }
  | { kind: 'group'; pipeline: Pipeline };

interface Token {
  action: boolean;
  text: string;
}

function tokenize(template: string): Token[] {
  const tokens: Token[] = [];
  // Docker's users write \t and \n in single-quoted shell words and expect a tab and a line.
  const source = template.replace(/\\t/g, '\t').replace(/\\n/g, '\n');
  let at = 0;
  while (at < source.length) {
    const open = source.indexOf('{{', at);
    if (open < 0) break;
    const close = source.indexOf('}}', open);
    if (close < 0)
      throw new PgError('BAD_TEMPLATE', `template: unclosed action in ${JSON.stringify(template)}`, {
        hint: 'an action ends with }}',
      });
    let before = source.slice(at, open);
    let action = source.slice(open + 2, close);
    if (action.startsWith('- ')) {
      before = before.trimEnd();
      action = action.slice(2);
    }
    if (before !== '') tokens.push({ action: false, text: before });
    at = close + 2;
    if (action.endsWith(' -')) {
      action = action.slice(0, -2);
      while (/\s/.test(source[at] ?? '')) at++;
    }
    tokens.push({ action: true, text: action.trim() });
  }
  if (at < source.length) tokens.push({ action: false, text: source.slice(at) });
  return tokens;
}

class Parser {
  #tokens: Token[];
  #at = 0;
  /** The word that ended the block read last. */
  ended = '';

  constructor(tokens: Token[]) {
    this.#tokens = tokens;
  }

  block(enders: string[]): Node[] {
    const nodes: Node[] = [];
    for (;;) {
      const token = this.#tokens[this.#at++];
      if (token === undefined) {
        if (!enders.includes('')) throw new PgError('BAD_TEMPLATE', 'template: an {{end}} is missing');
        return nodes;
      }
      if (!token.action) {
        nodes.push({ kind: 'text', text: token.text });
        continue;
      }
      const word = /^\w+/.exec(token.text)?.[0] ?? '';
      if (word === 'end' || word === 'else') {
        if (!enders.includes(word)) throw new PgError('BAD_TEMPLATE', `template: unexpected {{${word}}}`);
        this.ended = word;
        return nodes;
      }
      if (word === 'range' || word === 'if' || word === 'with') {
        const pipeline = parsePipeline(token.text.slice(word.length));
        const then = this.block(['else', 'end']);
        const otherwise = this.ended === 'else' ? this.block(['end']) : [];
        nodes.push({ kind: word, pipeline, then, otherwise });
      } else if (!token.text.startsWith('/*')) {
        nodes.push({ kind: 'value', pipeline: parsePipeline(token.text), text: token.text });
      }
    }
  }
}

function parsePipeline(text: string): Pipeline {
  const words = text.match(/"(?:[^"\\]|\\.)*"|`[^`]*`|[()|]|[^\s()|]+/g) ?? [];
  let at = 0;
  const parse = (): Pipeline => {
    const stages: Pipeline = [[]];
    while (at < words.length && words[at] !== ')') {
      const word = words[at++]!;
      if (word === '|') stages.push([]);
      else if (word === '(') {
        stages.at(-1)!.push({ kind: 'group', pipeline: parse() });
        at++;
      } else stages.at(-1)!.push(operand(word));
    }
    if (stages.some((stage) => stage.length === 0))
      throw new PgError('BAD_TEMPLATE', `template: an empty command in {{${text.trim()}}}`);
    return stages;
  };
  return parse();
}

function operand(word: string): Operand {
  if (word.startsWith('"')) return { kind: 'literal', value: JSON.parse(word) as unknown };
  if (word.startsWith('`')) return { kind: 'literal', value: word.slice(1, -1) };
  if (/^-?\d+(\.\d+)?$/.test(word)) return { kind: 'literal', value: Number(word) };
  if (word === 'true' || word === 'false') return { kind: 'literal', value: word === 'true' };
  if (word.startsWith('.') || word.startsWith('$.') || word === '$') {
    return { kind: 'field', path: word.replace(/^\$/, '').split('.').filter(Boolean), rootVar: word.startsWith('$') };
  }
  return { kind: 'name', name: word };
}

const truthy = (value: unknown): boolean => {
  if (Array.isArray(value)) return value.length > 0;
  if (value !== null && typeof value === 'object') return Object.keys(value).length > 0;
  return Boolean(value);
};

function show(value: unknown): string {
  if (value === undefined) return '<no value>';
  if (value === null) return '<nil>';
  if (Array.isArray(value)) return `[${value.map(show).join(' ')}]`;
  if (typeof value === 'object') {
    const inner = Object.entries(value).map(([key, entry]) => `${key}:${show(entry)}`);
    return `map[${inner.join(' ')}]`;
  }
  return String(value);
}

/** The verbs s, v, d, q, t and f of Go's fmt, with a width, `-` and a precision. */
function printf(format: string, values: unknown[]): string {
  return format.replace(
    /%(-?)(\d*)(?:\.(\d+))?([svdqtf%])/g,
    (_, left: string, width: string, precision: string, verb: string) => {
      if (verb === '%') return '%';
      const value = values.shift();
      let text = verb === 'q' ? JSON.stringify(show(value)) : show(value);
      if (verb === 'f') text = Number(value).toFixed(precision === undefined ? 6 : Number(precision));
      else if (precision !== undefined) text = text.slice(0, Number(precision));
      return left === '' ? text.padStart(Number(width)) : text.padEnd(Number(width));
    },
  );
}

const FUNCTIONS: Record<string, (...args: unknown[]) => unknown> = {
  json: (value) => JSON.stringify(value),
  join: (list, separator) => (list as unknown[]).map(show).join(String(separator)),
  split: (text, separator) => String(text).split(String(separator)),
  lower: (text) => show(text).toLowerCase(),
  upper: (text) => show(text).toUpperCase(),
  title: (text) => show(text).replace(/\b\w/g, (c) => c.toUpperCase()),
  len: (value) =>
    typeof value === 'string' || Array.isArray(value) ? value.length : Object.keys(value as object).length,
  index: (value, ...keys) =>
    keys.reduce((at, key) => (at as Record<string, unknown> | undefined)?.[String(key)], value) ?? '',
  printf: (format, ...values) => printf(String(format), values),
  println: (...values) => `${values.map(show).join(' ')}\n`,
  eq: (a, ...others) => others.some((b) => a === b),
  ne: (a, b) => a !== b,
  not: (value) => !truthy(value),
  and: (...values) => values.find((value) => !truthy(value)) ?? values.at(-1),
  or: (...values) => values.find(truthy) ?? values.at(-1),
};

function evaluate(pipeline: Pipeline, dot: unknown, root: unknown): unknown {
  let carried: unknown[] = [];
  for (const stage of pipeline) {
    const [head, ...rest] = stage;
    const args = [...rest.map((arg) => valueOf(arg, dot, root)), ...carried];
    if (head!.kind === 'name') {
      const fn = FUNCTIONS[head!.name];
      if (fn === undefined) {
        throw new PgError('BAD_TEMPLATE', `template: function "${head!.name}" not defined`, {
          hint: `known: ${Object.keys(FUNCTIONS).join(' ')}`,
        });
      }
      carried = [fn(...args)];
    } else carried = [valueOf(head!, dot, root)];
  }
  return carried[0];
}

function valueOf(operand: Operand, dot: unknown, root: unknown): unknown {
  switch (operand.kind) {
    case 'literal':
      return operand.value;
    case 'group':
      return evaluate(operand.pipeline, dot, root);
    case 'name':
      return evaluate([[operand]], dot, root);
    case 'field':
      return operand.path.reduce<unknown>(
        (at, key) => (at !== null && typeof at === 'object' ? (at as Record<string, unknown>)[key] : undefined),
        operand.rootVar ? root : dot,
      );
  }
}

/** A typing error in a script must not pass for an empty value; docker refuses it, too. */
function noSuchField(action: string, dot: unknown): PgError {
  const known = dot !== null && typeof dot === 'object' ? Object.keys(dot).join(' ') : '';
  return new PgError('BAD_TEMPLATE', `template: there is nothing at {{${action}}}`, {
    ...(known !== '' && { hint: `known: ${known}` }),
  });
}

function renderNode(node: Node, dot: unknown, root: unknown): string {
  if (node.kind === 'text') return node.text;
  const value = evaluate(node.pipeline, dot, root);
  if (node.kind === 'value') {
    if (value === undefined) throw noSuchField(node.text, dot);
    return show(value);
  }
  const block = (nodes: Node[], at: unknown): string => nodes.map((inner) => renderNode(inner, at, root)).join('');
  if (!truthy(value)) return block(node.otherwise, dot);
  if (node.kind === 'if') return block(node.then, dot);
  if (node.kind === 'with') return block(node.then, value);
  return Object.values(value as object)
    .map((item) => block(node.then, item))
    .join('');
}
