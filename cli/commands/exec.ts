import { Args, Flags } from '@oclif/core';
import { fromErrorData, PgError } from '../../mdm/error.ts';
import { execContainer } from '../../runtime/containers.ts';
import { commandWords } from '../argv.ts';
import { PgCommand } from '../base.ts';
import { parseEnv } from '../run-options.ts';
import { Session } from '../session.ts';

const many = { multiple: true, multipleNonGreedy: true } as const;

export default class Exec extends PgCommand {
  static override summary = 'Run a command in a running container.';
  static override usage = 'exec [FLAGS] CONTAINER COMMAND [ARG...]';
  static override examples = [
    '<%= config.bin %> exec -it web bash',
    {
      description: 'All of it, or nothing',
      command: "<%= config.bin %> exec --atomic web sh -c 'apt-get update && apt-get upgrade -y'",
    },
    { description: 'as another user, elsewhere', command: '<%= config.bin %> exec -u www-data -w /var/www web ls' },
  ];
  static override description = `With --atomic the command runs on a view of its own of the container's files as they are now: nobody else sees what it writes until it exits with 0, when all of it
becomes the container's in one batch; with another exit code nothing does. It fails if the container has changed the same files or names meanwhile. Volumes are
the container's own, and not part of it; what it has in memory (tmpfs, /dev/shm) is new and empty for the command.`;
  static override flags = {
    atomic: Flags.boolean({
      description: 'keep what it writes only if it exits 0: all of it at once, or nothing',
      exclusive: ['detach'],
    }),
    detach: Flags.boolean({ char: 'd', description: 'leave it running' }),
    env: Flags.string({ ...many, char: 'e', description: 'set an environment variable', helpValue: 'NAME[=VALUE]' }),
    'env-file': Flags.string({ ...many, description: 'environment variables from a file', helpValue: 'FILE' }),
    interactive: Flags.boolean({ char: 'i', description: 'keep its stdin open' }),
    privileged: Flags.boolean({ description: 'all capabilities' }),
    tty: Flags.boolean({ char: 't', description: 'a terminal' }),
    user: Flags.string({ char: 'u', description: 'who runs it', helpValue: 'NAME|UID[:GROUP|GID]' }),
    workdir: Flags.string({ char: 'w', description: 'its working directory', helpValue: 'DIR' }),
  };
  static override args = {
    container: Args.string({ description: 'name or id', required: true }),
    command: Args.string({ description: 'what to run, and its arguments', required: true }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Exec);
    const exec = {
      args: commandWords(this.argv),
      tty: flags.tty,
      stdin: flags.interactive,
      user: flags.user ?? null,
      workdir: flags.workdir ?? null,
      env: parseEnv(flags.env ?? [], flags['env-file'] ?? []),
      privileged: flags.privileged,
      ...(flags.atomic ? { atomic: true } : {}),
    };
    const roots = this.roots(flags);
    if (flags.detach) {
      await execContainer(roots, args.container, { ...exec, stdin: false }, null);
      return;
    }
    if (exec.tty && exec.stdin && !process.stdin.isTTY) {
      throw new PgError('BAD_USAGE', 'the input device is not a TTY', { hint: 'leave out -t' });
    }
    const session = new Session({ tty: exec.tty, stdin: exec.stdin, detachable: true });
    try {
      await session.prepare();
      session.begin(await execContainer(roots, args.container, exec, session));
      const result = await session.result;
      if (result.detached) return;
      if (result.end.error !== undefined) throw fromErrorData(result.end.error);
      process.exitCode = result.end.exitCode;
    } finally {
      session.end();
    }
  }
}
