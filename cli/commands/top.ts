import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Args } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { visible } from '../../mdm/visible.ts';
import { containerPids } from '../../runtime/containers.ts';
import { commandWords } from '../argv.ts';
import { PgCommand } from '../base.ts';

const run = promisify(execFile);

export default class Top extends PgCommand {
  static override summary = "List a container's processes.";
  static override usage = 'top CONTAINER [OPTIONS OF PS...]';
  static override examples = ['<%= config.bin %> top web', '<%= config.bin %> top web -o pid,rss,args'];
  static override args = {
    container: Args.string({ description: 'name or id', required: true }),
    options: Args.string({ description: 'options of ps(1); the default is -ef' }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Top);
    const pids = new Set((await containerPids(this.roots(flags), args.container)).map(String));
    const options = commandWords(this.argv);
    const { stdout } = await run('ps', options.length > 0 ? ['-e', ...options] : ['-ef']).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw new PgError('BAD_USAGE', `ps: ${error.message}`);
        throw new PgError('NO_PS', "'ps' is not installed", { hint: 'apt install procps' });
      },
    );
    const [heading = '', ...lines] = stdout.trimEnd().split('\n');
    const column = heading.trim().split(/\s+/).indexOf('PID');
    if (column < 0)
      throw new PgError('BAD_USAGE', "Couldn't find PID field in ps output", { hint: 'include pid in -o' });
    const own = lines.filter((line) => pids.has(line.trim().split(/\s+/)[column]!));
    // A process may be called anything; ps(1) of procps makes it harmless, others may not.
    const show = process.stdout.isTTY ? visible : String;
    process.stdout.write(`${[heading, ...own].map((line) => show(line)).join('\n')}\n`);
  }
}
