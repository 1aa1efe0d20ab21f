import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { IMAGE, Installation, needContainers, outcomeOf, PG, until } from './installation.ts';

/** Runs pg in a terminal of script(1), 33 x 99 characters large. */
function inTerminal(pg: Installation, ...words: string[]): ChildProcess {
  const quoted = [PG, ...words].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const command = `stty rows 33 cols 99; exec ${quoted}`;
  return spawn('script', ['-qec', command, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, PG_ROOT: pg.roots.data },
  });
}

describe('containers with a terminal', function () {
  this.timeout(60_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    if (!existsSync('/usr/bin/script')) {
      console.error('      skipped: no script(1) (apt install bsdutils)');
      this.skip();
    }
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  /** Types `text` once `prompt` has been shown. */
  function typing(
    child: ChildProcess,
    steps: [prompt: RegExp, text: string][],
  ): Promise<{ code: number; stdout: string }> {
    const outcome = outcomeOf(child);
    let shown = '';
    child.stdout!.on('data', (text: string) => {
      shown += text;
      const step = steps[0];
      if (step === undefined || !step[0].test(shown)) return;
      steps.shift();
      shown = '';
      child.stdin!.write(step[1]);
    });
    return outcome;
  }

  it('is a terminal of the size of pg’s, with what is typed echoed and edited by it', async () => {
    const child = inTerminal(pg, 'run', '--rm', '-it', '--network', 'none', IMAGE, 'sh');
    const { code, stdout } = await typing(child, [
      [/# /, 'tty; stty size; echo $TERM\n'],
      [/xterm\r\n/, 'exit 5\n'],
    ]);
    assert.equal(code, 5);
    assert.match(stdout, /\/dev\/pts\/0\r\n33 99\r\nxterm/);
  });

  it('is left running by Ctrl-P Ctrl-Q, attached to again, and keeps its log', async () => {
    const first = inTerminal(pg, 'run', '-it', '--name', 'shell', '--network', 'none', IMAGE, 'sh');
    assert.equal(
      (
        await typing(first, [
          [/# /, 'echo o""ne\n'],
          [/one\r\n/, '\x10\x11'],
        ])
      ).code,
      0,
    );
    assert.equal(await pg.ok('ps', '--format', '{{.Names}}'), 'shell');
    const second = inTerminal(pg, 'attach', 'shell');
    setTimeout(() => second.stdin!.write('echo t""wo\n'), 500);
    assert.equal((await typing(second, [[/two\r\n/, 'exit 6\n']])).code, 6);
    const log = await pg.ok('logs', 'shell');
    assert.match(log, /one\r\n[^]*two\r\n/);
    await pg.ok('rm', 'shell');
  });

  it('is interrupted by Ctrl-C typed into it', async () => {
    const child = inTerminal(
      pg,
      'run',
      '--rm',
      '-it',
      '--network',
      'none',
      IMAGE,
      'sh',
      '-c',
      'trap "echo caught; exit 4" INT; echo ready; while :; do sleep 0.1; done',
    );
    const { code, stdout } = await typing(child, [[/ready/, '\x03']]);
    assert.equal(code, 4);
    assert.match(stdout, /caught/);
  });

  it('has one in exec, of its own', async () => {
    await pg.ok('run', '-d', '--name', 'host', '--network', 'none', IMAGE, 'sleep', '1000');
    const child = inTerminal(pg, 'exec', '-it', 'host', 'sh');
    const { code, stdout } = await typing(child, [
      [/# /, 'stty size; id -u\n'],
      [/\r\n0\r\n/, 'exit 3\n'],
    ]);
    assert.equal(code, 3);
    assert.match(stdout, /33 99\r\n0/);
    const refused = await pg.pg('exec', '-it', 'host', 'sh');
    assert.match(refused.stderr, /not a TTY/);
    await pg.ok('rm', '-f', 'host');
  });

  it('without a terminal of pg’s own, -t alone works', async () => {
    const { stdout, code } = await pg.pg('run', '--rm', '-t', '--network', 'none', IMAGE, 'sh', '-c', 'tty; echo x');
    assert.deepEqual({ code, stdout }, { code: 0, stdout: '/dev/pts/0\r\nx\r\n' });
  });

  it('fails as without one when the command is not there', async () => {
    const { code } = await pg.pg('run', '--rm', '-t', '--network', 'none', IMAGE, 'nosuch');
    assert.equal(code, 127);
    await until('nothing is left', async () => (await pg.ok('ps', '-aq')) === '');
  });
});
