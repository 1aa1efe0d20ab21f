import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { Args, Flags } from '@oclif/core';
import { loggedIn, login, registryHost } from '../../layers/registry/login.ts';
import { PgError } from '../../mdm/error.ts';
import { PgCommand } from '../base.ts';

/** The flag of `login` and `logout` for another file than podman's. */
export const authFileFlag = Flags.string({
  description: 'file of credentials (default: $REGISTRY_AUTH_FILE, else as podman login)',
  helpValue: 'PATH',
});

/** The environment with the file that `--authfile` names. */
export function authEnvironment(authfile: string | undefined): NodeJS.ProcessEnv {
  return authfile === undefined ? process.env : { ...process.env, REGISTRY_AUTH_FILE: authfile };
}

/** A password has no more. */
const PASSWORD_BYTES_MAX = 64 * 1024;

export default class Login extends PgCommand {
  static override summary = 'Log in to a registry.';
  static override description = `Tries name and password, and keeps them where podman and docker find them too: in the credential helper that their files name for the registry, else in auth.json.
Without a registry: Docker Hub.`;
  static override examples = [
    '<%= config.bin %> login registry.example.com',
    {
      description: 'In a script',
      command: 'cat token | <%= config.bin %> login -u robot --password-stdin registry.example.com',
    },
  ];
  static override flags = {
    username: Flags.string({ char: 'u', description: 'name' }),
    password: Flags.string({ char: 'p', description: 'password (better: --password-stdin; others can see this)' }),
    'password-stdin': Flags.boolean({ description: 'read the password from stdin' }),
    'get-login': Flags.boolean({ description: 'only say who is logged in' }),
    authfile: authFileFlag,
  };
  static override args = {
    registry: Args.string({ description: 'HOST or HOST:PORT' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Login);
    const env = authEnvironment(flags.authfile);
    const host = registryHost(args.registry);
    if (flags['get-login']) {
      const name = loggedIn(host, env);
      if (name === undefined) throw new PgError('NOT_LOGGED_IN', `not logged in to ${host}`);
      process.stdout.write(`${name}\n`);
      return;
    }
    if (flags.password !== undefined && flags['password-stdin'])
      throw new PgError('BAD_FLAG', '--password and --password-stdin are one too many');
    const username = flags.username ?? (await ask('Username: ', flags['password-stdin'] === true, false));
    const password = flags['password-stdin']
      ? await passwordFromStdin()
      : (flags.password ?? (await ask('Password: ', false, true)));
    if (username === '' || password === '') throw new PgError('BAD_FLAG', 'a name and a password are needed');
    if (username.includes(':')) throw new PgError('BAD_FLAG', 'a name cannot have a colon in it');
    const kept = await login(host, username, password, env, undefined);
    process.stderr.write(`logged in to ${host}; kept in ${kept}\n`);
  }
}

async function passwordFromStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes > PASSWORD_BYTES_MAX) throw new PgError('BAD_FLAG', 'what comes on stdin is too long for a password');
  }
  return Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}

/** Asks on the terminal; what is secret is not shown. */
async function ask(question: string, stdinTaken: boolean, isSecret: boolean): Promise<string> {
  if (stdinTaken || !process.stdin.isTTY) {
    throw new PgError('BAD_FLAG', 'there is no terminal to ask for name and password', {
      hint: 'say them: -u NAME --password-stdin',
    });
  }
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  if (isSecret) process.stderr.write(question);
  const lines = createInterface({ input: process.stdin, output: isSecret ? nowhere : process.stderr, terminal: true });
  try {
    return await lines.question(isSecret ? '' : question);
  } finally {
    lines.close();
    if (isSecret) process.stderr.write('\n');
  }
}
