import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { PgError } from '../../mdm/error.ts';
import { findRuntime } from '../host.ts';

export type Stdio = [number | 'ignore', number | 'ignore', number | 'ignore'];

/** crun (1.8) refuses v1 cgroups when the v2 mount beside them has controllers: in a mount namespace without that mount it does not see it. */
const WITHOUT_UNIFIED = 'umount -l /sys/fs/cgroup/unified && exec "$@"';

/** runc or crun by their common command line. Nothing here waits synchronously: the runtime looks into the filesystem that we serve. */
export class OciRuntime {
  private readonly program: string[];
  private readonly root: string;

  /** `root` is the directory for the runtime's own state. */
  constructor(name: 'runc' | 'crun', root: string) {
    const path = findRuntime(name);
    this.program =
      name === 'crun' && hybridWithControllers() ? ['unshare', '-m', 'sh', '-c', WITHOUT_UNIFIED, 'sh', path] : [path];
    this.root = root;
  }

  /**
   * Creates and starts a container from a bundle and leaves it to us; its process number. The standard streams are the container's own.
   * PgError('COMMAND_NOT_FOUND' | 'COMMAND_NOT_EXECUTABLE' | 'RUNTIME') with the runtime's words.
   */
  run(id: string, bundle: string, stdio: Stdio, consoleSocket: string | null): Promise<number> {
    const files = { pid: `${bundle}/init.pid`, log: `${bundle}/runtime.log` };
    const terminal = consoleSocket === null ? [] : ['--console-socket', consoleSocket];
    return this.start(['run', '--detach', '--bundle', bundle, '--pid-file', files.pid, ...terminal, id], files, stdio);
  }

  /** Starts a process (an OCI process as JSON in a file) in a running container; its number. Errors as `run`. */
  exec(id: string, processFile: string, stdio: Stdio, consoleSocket: string | null): Promise<number> {
    const files = { pid: `${processFile}.pid`, log: `${processFile}.log` };
    const terminal = consoleSocket === null ? [] : ['--console-socket', consoleSocket];
    return this.start(
      ['exec', '--detach', '--process', processFile, '--pid-file', files.pid, ...terminal, id],
      files,
      stdio,
    );
  }

  /** Freezes all processes of a running container, and lets them go on. PgError('RUNTIME'). */
  async pause(id: string): Promise<void> {
    await this.order('pause', id);
  }

  async resume(id: string): Promise<void> {
    await this.order('resume', id);
  }

  private async order(word: string, id: string): Promise<void> {
    const code = await ended(this.spawn([word, id], ['ignore', 'ignore', 'ignore'], '/dev/null'));
    if (code !== 0) throw new PgError('RUNTIME', `the runtime cannot ${word} container ${id}: exit code ${code}`);
  }

  /** Kills what is left and removes the runtime's state and cgroups. No error when there is nothing. */
  async remove(id: string): Promise<void> {
    const child = this.spawn(['delete', '--force', id], ['ignore', 'ignore', 'ignore'], '/dev/null');
    await ended(child);
  }

  private spawn(args: string[], stdio: Stdio, log: string): ChildProcess {
    const [program, ...before] = this.program;
    return spawn(program!, [...before, '--root', this.root, '--log', log, '--log-format', 'json', ...args], {
      stdio,
      cwd: '/',
    });
  }

  private async start(args: string[], files: { pid: string; log: string }, stdio: Stdio): Promise<number> {
    const code = await ended(this.spawn(args, stdio, files.log));
    if (code !== 0) throw startError(await lastError(files.log), code);
    return Number(await readFile(files.pid, 'latin1'));
  }
}

function hybridWithControllers(): boolean {
  const path = '/sys/fs/cgroup/unified/cgroup.controllers';
  return existsSync(path) && readFileSync(path, 'latin1').trim() !== '';
}

function ended(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 137));
  });
}

/** The last error in the runtime's log (a JSON object a line). */
async function lastError(log: string): Promise<string> {
  const text = await readFile(log, 'utf8').catch(() => '');
  const messages = text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as { level: string; msg: string })
    .filter((line) => line.level === 'error' || line.level === 'fatal');
  return messages.at(-1)?.msg ?? '';
}

/** What the runtime's words mean: a command that is not there (127), one that cannot be executed (126), anything else (125). */
function startError(message: string, code: number): PgError {
  if (/chdir (to )?(cwd|`)/.test(message)) return new PgError('COMMAND_NOT_EXECUTABLE', message);
  const words = message === '' ? `the runtime failed with exit code ${code}` : message;
  if (
    /executable file not found|exec: .*no such file or directory|executable .*not found|stat .*: no such file/.test(
      words,
    )
  ) {
    return new PgError('COMMAND_NOT_FOUND', words);
  }
  if (
    /exec: .*(permission denied|is a directory|exec format error)|exec format error|open executable: Permission denied/i.test(
      words,
    )
  ) {
    return new PgError('COMMAND_NOT_EXECUTABLE', words);
  }
  return new PgError('RUNTIME', words);
}
