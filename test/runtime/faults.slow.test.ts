import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { reviveContainers } from '../../runtime/containers.ts';
import { withSocketPath } from '../../runtime/control.ts';
import { readJson, writeJsonAtomic } from '../../runtime/json-file.ts';
import { hasLink, IMAGE, Installation, needContainers, outcomeOf, processLives, until } from './installation.ts';

const QUIET = ['--network', 'none'];
const ALL = { stdin: true, stdout: true, stderr: true };

/** What a socket has to say to these bytes until it closes. */
async function said(path: string, bytes: Buffer): Promise<string> {
  const socket = withSocketPath(path, (usable) => connect(usable));
  let text = '';
  socket.setEncoding('utf8').on('data', (more: string) => (text += more));
  socket.on('error', () => undefined);
  socket.end(bytes);
  await new Promise((resolve) => socket.on('close', resolve));
  return text;
}

describe('containers when something goes wrong', function () {
  this.timeout(120_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  /** Of a name that is claimed, whether or not there is a container yet. */
  const idOf = (name: string): string | undefined => {
    const path = join(pg.roots.data, 'names', name);
    return existsSync(path) ? readFileSync(path, 'utf8').split(' ')[0] : undefined;
  };
  const number = async (name: string, field: string) =>
    Number(await pg.ok('inspect', '--format', `{{${field}}}`, name));

  it('whose shim is killed: nothing of it is left, what was fsynced is there, and it starts again', async () => {
    const id = await pg.ok('run', '-d', '--name', 'victim', '-p', '127.0.0.1::80', IMAGE, 'sleep', '1000');
    await pg.ok('exec', 'victim', 'sh', '-c', 'echo durable > /file && sync /file && sync');
    const [shim, init] = [await number('victim', '.Pg.ShimPid'), await number('victim', '.State.Pid')];
    const netns = await pg.ok('inspect', '-f', '{{.NetworkSettings.SandboxKey}}', 'victim');
    process.kill(shim, 'SIGKILL');
    await until('the shim is gone', () => !processLives(shim));
    assert.match(await pg.ok('ps', '-a', '--format', '{{.Names}} {{.Status}}'), /^victim Exited \(137\)/);
    assert.ok(!processLives(init), 'the container does not go on without its root');
    assert.ok(!readFileSync('/proc/self/mounts', 'latin1').includes(id), 'no dead mount');
    assert.ok(!existsSync(netns));
    assert.ok(!hasLink(id));
    assert.equal(await pg.ok('inspect', '-f', '{{.State.Error}}', 'victim'), 'its shim was killed');
    await pg.ok('start', 'victim');
    assert.equal(await pg.ok('exec', 'victim', 'cat', '/file'), 'durable');
    await pg.ok('rm', '-f', 'victim');
  });

  it('whose shim is killed: pg start alone brings it back', async () => {
    await pg.ok('run', '-d', '--name', 'victim', ...QUIET, IMAGE, 'sleep', '1000');
    process.kill(await number('victim', '.Pg.ShimPid'), 'SIGKILL');
    await pg.ok('start', 'victim');
    assert.equal(await pg.ok('exec', 'victim', 'echo', 'back'), 'back');
    process.kill(await number('victim', '.Pg.ShimPid'), 'SIGKILL');
    await pg.ok('rm', '-f', 'victim');
  });

  it('whose shim is killed while pg is attached: pg says so', async () => {
    const child = pg.start('run', '--rm', '--name', 'fg', ...QUIET, IMAGE, 'sh', '-c', 'echo ready; sleep 1000');
    const outcome = outcomeOf(child);
    await until('ready', async () => (await pg.pg('logs', 'fg')).stdout === 'ready\n');
    process.kill(await number('fg', '.Pg.ShimPid'), 'SIGKILL');
    const { code, stderr } = await outcome;
    assert.equal(code, 125);
    assert.match(stderr, /its shim has ended/);
    assert.equal(await pg.ok('ps', '-aq'), '', '--rm holds all the same');
  });

  it('whose shim is killed at any moment of its start or end: it can be removed, and nothing is left', async () => {
    for (const delayMs of [0, 20, 40, 60, 80, 100, 130, 160, 200, 260, 320, 400]) {
      const child = pg.start('run', '-d', '--name', 'v', IMAGE, 'true');
      const outcome = outcomeOf(child);
      const shims = () => readdirSync('/proc').filter((pid) => isShimOf(pid, child.pid!));
      await until('a shim', () => shims().length > 0 || child.exitCode !== null);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      for (const pid of shims()) kill(Number(pid));
      await outcome;
      const id = idOf('v');
      const { code, stderr } = await pg.pg('rm', '-f', 'v');
      assert.equal(code, 0, stderr);
      assert.equal(await pg.ok('ps', '-aq'), '');
      assert.ok(!readFileSync('/proc/self/mounts', 'latin1').includes(pg.dir), `mounts after ${delayMs} ms`);
      assert.ok(id === undefined || !hasLink(id), `links after ${delayMs} ms`);
    }
  });

  it('whose pg is killed: a container in the foreground goes on', async () => {
    const child = pg.start('run', '--name', 'orphan', ...QUIET, IMAGE, 'sh', '-c', 'echo ready; sleep 1000');
    const outcome = outcomeOf(child);
    await until('ready', async () => (await pg.pg('logs', 'orphan')).stdout === 'ready\n');
    child.kill('SIGKILL');
    await outcome;
    assert.equal(await pg.ok('exec', 'orphan', 'echo', 'here'), 'here');
    await pg.ok('rm', '-f', 'orphan');
  });

  it('whose pg is killed while it makes the container: the name can be used again', async () => {
    for (const delayMs of [0, 50, 100, 150, 200, 300]) {
      const child = pg.start('run', '--rm', '--name', 'same', ...QUIET, IMAGE, 'true');
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      child.kill('SIGKILL');
      await outcomeOf(child);
      await until('the name is free', async () => {
        await pg.pg('rm', '-f', 'same');
        const { code, stderr } = await pg.pg('run', '--rm', '--name', 'same', ...QUIET, IMAGE, 'true');
        if (code !== 0) assert.match(stderr, /already in use/);
        return code === 0;
      });
    }
  });

  it('made twice at once with one name: one is made', async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 4 }, () => pg.pg('run', '-d', '--name', 'twin', ...QUIET, IMAGE, 'sleep', '1000')),
    );
    assert.deepEqual(
      outcomes.map((o) => o.code).toSorted((a, b) => a - b),
      [0, 125, 125, 125],
    );
    for (const { code, stderr } of outcomes)
      if (code !== 0) assert.match(stderr, /The container name "\/twin" is already in use/);
    assert.equal((await pg.ok('ps', '-aq')).split('\n').length, 1);
    await pg.ok('rm', '-f', 'twin');
  });

  it('started twice at once: it runs once', async () => {
    await pg.ok('create', '--name', 'twice', ...QUIET, IMAGE, 'sh', '-c', 'echo begun; sleep 1000');
    const outcomes = await Promise.all([pg.pg('start', 'twice'), pg.pg('start', 'twice'), pg.pg('start', 'twice')]);
    assert.deepEqual(
      outcomes.map((o) => o.code),
      [0, 0, 0],
      outcomes.map((o) => o.stderr).join(''),
    );
    assert.equal(await pg.ok('logs', 'twice'), 'begun');
    const removed = await Promise.all([pg.pg('rm', '-f', 'twice'), pg.pg('rm', '-f', 'twice')]);
    assert.deepEqual(
      removed.map((o) => o.code),
      [0, 0],
      removed.map((o) => o.stderr).join(''),
    );
  });

  it('after a power cut: what claims to run from an earlier boot does not', async () => {
    const id = await pg.ok('run', '-d', '--name', 'cut', ...QUIET, IMAGE, 'sleep', '1000');
    process.kill(await number('cut', '.Pg.ShimPid'), 'SIGKILL');
    await until('cleaned up', async () => (await pg.ok('ps', '-q')) === '');
    const path = join(pg.roots.data, 'containers', id, 'state.json');
    const state = readJson<object>(path);
    writeJsonAtomic(path, { ...state, status: 'running', shimPid: 1, initPid: 1, bootId: 'another' });
    assert.match(await pg.ok('ps', '-a', '--format', '{{.Status}}'), /^Exited \(137\)/);
    assert.equal(await pg.ok('inspect', '-f', '{{.State.Error}}', 'cut'), 'the machine was restarted');
    rmSync(pg.roots.run, { recursive: true });
    await pg.ok('start', 'cut');
    await pg.ok('rm', '-f', 'cut');
  });

  it('lost with a policy: brought back by who asks for it, unless it was stopped', async () => {
    await pg.ok('run', '-d', '--name', 'back', '--restart', 'unless-stopped', ...QUIET, IMAGE, 'sleep', '1000');
    await pg.ok('run', '-d', '--name', 'gone', ...QUIET, IMAGE, 'sleep', '1000');
    await pg.ok('run', '-d', '--name', 'stopped', '--restart', 'unless-stopped', ...QUIET, IMAGE, 'sleep', '1000');
    await pg.ok('stop', '-t', '0', 'stopped');
    for (const name of ['back', 'gone']) process.kill(await number(name, '.Pg.ShimPid'), 'SIGKILL');
    const failures: string[] = [];
    const revived = await reviveContainers(pg.roots, (name) => failures.push(name));
    assert.equal(failures.length, 0);
    assert.equal(revived.length, 1);
    assert.equal(await pg.ok('ps', '--format', '{{.Names}}'), 'back');
    assert.deepEqual(await reviveContainers(pg.roots, (name) => failures.push(name)), []);
    await pg.ok('rm', '-f', 'back', 'gone', 'stopped');
  });

  it('whose root somebody on the host is in: it ends, and starts again', async () => {
    await pg.ok('run', '-d', '--name', 'held', ...QUIET, IMAGE, 'sleep', '1000');
    const holder = spawn('sleep', ['1000'], { cwd: `/proc/${await number('held', '.State.Pid')}/root/etc` });
    await new Promise((resolve) => holder.once('spawn', resolve));
    try {
      await pg.ok('stop', '-t', '0', 'held');
      assert.ok(processLives(holder.pid!));
      await pg.ok('start', 'held');
      assert.equal(await pg.ok('exec', 'held', 'echo', 'again'), 'again');
    } finally {
      holder.kill('SIGKILL');
    }
    await pg.ok('rm', '-f', 'held');
  });

  it('whose shim is asked nonsense: it says so, takes nothing of it, and goes on', async () => {
    const id = await pg.ok('run', '-d', '--name', 'asked', ...QUIET, IMAGE, 'sleep', '1000');
    const path = join(pg.roots.run, 'containers', id, 'shim.sock');
    assert.equal(statSync(dirname(path)).mode & 0o777, 0o700, 'nobody but root reaches the socket');
    const frames = (bytes: Buffer) =>
      Buffer.concat([Buffer.from(`${JSON.stringify({ op: 'attach', attach: ALL })}\n`), bytes]);
    const exec = { args: ['true'], tty: false, stdin: false, user: null, workdir: null, env: [], privileged: false };
    const lines = [
      '',
      'x',
      '[]',
      'null',
      '"op"',
      '{}',
      '{"op":1}',
      '{"op":"__proto__"}',
      '{"op":"kill"}',
      '{"op":"kill","signal":"9"}',
    ];
    lines.push(JSON.stringify({ op: 'exec', exec: { ...exec, args: [] }, attach: null }));
    lines.push(JSON.stringify({ op: 'exec', exec: { ...exec, env: [1] }, attach: null }));
    lines.push(JSON.stringify({ op: 'attach', attach: { ...ALL, size: { rows: -1, columns: 1e9 } } }));
    lines.push(JSON.stringify({ op: 'start', roots: pg.roots, id: '../..', attach: null }));
    const answers = (await said(path, Buffer.from(`${lines.join('\n')}\n`))).trimEnd().split('\n');
    assert.deepEqual(
      answers.map((line) => (JSON.parse(line) as { error: { code: string } }).error.code),
      lines.map((line) => (line.includes('__proto__') ? 'UNKNOWN_REQUEST' : 'BAD_REQUEST')),
    );
    assert.match(await said(path, Buffer.alloc(17 << 20, 'x')), /BAD_REQUEST.*more than/);
    assert.match(
      await said(path, frames(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]))),
      /BAD_REQUEST.*a frame of 4294967295 bytes/,
    );
    assert.match(await said(path, frames(Buffer.from([99, 0, 0, 0, 0]))), /"ok":true/, 'a frame of a later pg');

    const shim = await number('asked', '.Pg.ShimPid');
    const open = () => readdirSync(`/proc/${shim}/fd`).length;
    const before = open();
    // Descriptors that come along are nobody's.
    execFileSync(
      'python3',
      [
        '-c',
        'import socket,os\ns=socket.socket(socket.AF_UNIX)\ns.connect("shim.sock")\nsocket.send_fds(s,[b"{}\\n"],[os.open("/etc/passwd",0)]*100)\nassert b"BAD_REQUEST" in s.recv(999)',
      ],
      { cwd: dirname(path) },
    );
    const idle = Array.from({ length: 300 }, () => withSocketPath(path, (usable) => connect(usable)));
    await Promise.all(idle.map((socket) => once(socket, 'connect')));
    assert.equal(await pg.ok('exec', 'asked', 'echo', 'here'), 'here');
    for (const socket of idle) socket.destroy();
    await until('what was opened is closed', () => open() <= before);
    await pg.ok('rm', '-f', 'asked');
  });

  it('says clearly what is not there', async () => {
    for (const words of [
      ['start'],
      ['stop'],
      ['kill'],
      ['rm'],
      ['wait'],
      ['logs'],
      ['exec', 'x', 'true'],
      ['top'],
      ['diff'],
      ['attach'],
      ['port'],
    ]) {
      const { code, stderr } = await pg.pg(words[0]!, ...(words.length > 1 ? words.slice(1) : ['nosuch']));
      assert.notEqual(code, 0);
      assert.match(stderr, /^pg: No such container: (nosuch|x)\n/, words[0]!);
    }
  });
});

/** A shim that this pg started: its child, or its orphan by the descriptors it has. */
function isShimOf(pid: string, parent: number): boolean {
  if (!/^\d+$/.test(pid)) return false;
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    return /runtime\/shim\.(js|ts)/.test(command) && (ppid === parent || ppid === 1);
  } catch {
    return false;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended by itself.
  }
}
