/**
 * A command line with what stands before the command taken care of, as docker takes it: `pg --root DIR ps` (the root then stands in `env`),
 * `pg help ps` and `pg ps -h`.
 */
export function takeGlobals(words: readonly string[], env: NodeJS.ProcessEnv): string[] {
  const [first, second, ...rest] = words;
  if (first === '--root' && second !== undefined && rest.length > 0) {
    env['PG_ROOT'] = second;
    return takeGlobals(rest, env);
  }
  if (first?.startsWith('--root=') && second !== undefined) {
    env['PG_ROOT'] = first.slice('--root='.length);
    return takeGlobals([second, ...rest], env);
  }
  if (first === 'help') return [...words.slice(1), '--help'];
  if (second === '-h' && rest.length === 0) return [first!, '--help'];
  return [...words];
}

/**
 * Flags without a value, of the commands that take another command behind their own arguments. Everything else that begins with a dash
 * has one. A test compares this with the commands.
 */
export const SWITCHES: Record<string, { long: string[]; short: string }> = {
  run: {
    long: [
      'atomic',
      'detach',
      'init',
      'interactive',
      'privileged',
      'publish-all',
      'quiet',
      'read-only',
      'rm',
      'sig-proxy',
      'no-sig-proxy',
      'tty',
      'help',
    ],
    short: 'diPqt',
  },
  create: {
    long: ['atomic', 'init', 'interactive', 'privileged', 'publish-all', 'quiet', 'read-only', 'rm', 'tty', 'help'],
    short: 'iPqt',
  },
  exec: { long: ['atomic', 'detach', 'interactive', 'privileged', 'tty', 'help'], short: 'dit' },
  top: { long: ['help'], short: '' },
};

/**
 * The words of a command line with `--` put behind the image or container of `run`, `create`, `exec` and `top`: what follows there belongs to the
 * container (`pg run IMAGE ls --help` is no question for pg's help), as docker has it.
 */
export function separateCommand(words: readonly string[]): string[] {
  const at = words.findIndex((word) => !word.startsWith('-'));
  const command = words[at] ?? '';
  const switches = Object.hasOwn(SWITCHES, command) ? SWITCHES[command] : undefined;
  if (switches === undefined) return [...words];
  for (let i = at + 1; i < words.length; i++) {
    const word = words[i]!;
    if (word === '--') return [...words.slice(0, i), ...words.slice(i + 1, i + 2), '--', ...words.slice(i + 2)];
    if (!word.startsWith('-') || word === '-') return [...words.slice(0, i + 1), '--', ...words.slice(i + 1)];
    if (takesNext(word, switches)) i++;
  }
  return [...words];
}

function takesNext(word: string, switches: { long: string[]; short: string }): boolean {
  if (word.startsWith('--')) return !word.includes('=') && !switches.long.includes(word.slice(2));
  // `-it`, `-eNAME`, `-e NAME`: the first letter that takes a value takes the rest of the word, or the next one.
  for (let i = 1; i < word.length; i++) {
    if (!switches.short.includes(word[i]!)) return i === word.length - 1;
  }
  return false;
}

/**
 * What stands behind the `--` of `separateCommand`: the container's command, word for word. (oclif's own list of arguments is sorted by where a
 * word first stood on the line, which mixes up words that come twice.)
 */
export function commandWords(argv: readonly string[]): string[] {
  const at = argv.indexOf('--');
  return at < 0 ? [] : argv.slice(at + 1);
}
