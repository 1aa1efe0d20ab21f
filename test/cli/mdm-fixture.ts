// Runs `pg mdm` in a directory of its own.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PG = join(dirname(fileURLToPath(import.meta.url)), '../../bin/pg');

export interface Answer {
  code: number | null;
  stdout: string;
  stderr: string;
}

export class Desk {
  readonly dir = mkdtempSync('/var/tmp/pg-test-');
  readonly root = join(this.dir, 'root');

  constructor() {
    mkdirSync(this.root);
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  /** `pg mdm ARGS` in the directory; `input` is its standard input. */
  async pg(args: string[], input = ''): Promise<Answer> {
    return await new Promise((resolve) => {
      const options = { cwd: this.dir, env: { ...process.env, PG_ROOT: this.root }, maxBuffer: 2 ** 28 };
      const child = execFile(PG, ['mdm', ...args], options, (_error, stdout, stderr) =>
        resolve({ code: child.exitCode, stdout, stderr }),
      );
      child.stdin!.on('error', () => {}); // it may end before it has read everything
      child.stdin!.end(input);
    });
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}
