import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { IMAGE, Installation, needContainers, outcomeOf, until } from './installation.ts';

const QUIET = ['--network', 'none'];

interface Inspected {
  State: { Status: string };
  Config: { Cmd: string[]; Labels: Record<string, string> };
  RepoTags: string[];
  Pg: { TreeRoot: string };
}

describe('the life of a container', function () {
  this.timeout(120_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  const inspect = async (name: string, field: string) => pg.ok('inspect', '--format', `{{${field}}}`, name);

  it('runs in the background, is listed, stopped, started again and removed; its files stay until then', async () => {
    const id = await pg.ok(
      'run',
      '-d',
      '--name',
      'web',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'trap "exit 7" TERM; while :; do sleep 0.1; done',
    );
    assert.match(id, /^[0-9a-f]{64}$/);
    assert.match(
      await pg.ok('ps'),
      new RegExp(`^CONTAINER ID.*\n${id.slice(0, 12)}\\s+${IMAGE}\\s+"sh -c .*Up .*web$`),
    );
    await pg.ok('exec', 'web', 'sh', '-c', 'echo kept > /file; sync');
    assert.equal(await pg.ok('stop', 'web'), 'web');
    assert.equal(await inspect('web', '.State.ExitCode'), '7');
    assert.equal(await pg.ok('ps', '-q'), '');
    assert.match(await pg.ok('ps', '-a', '--format', '{{.Names}} {{.Status}}'), /^web Exited \(7\) /);
    assert.equal(await pg.ok('start', id.slice(0, 8)), id.slice(0, 8));
    assert.equal(await pg.ok('start', 'web'), 'web', 'starting what runs is no error');
    assert.equal(await pg.ok('exec', 'web', 'cat', '/file'), 'kept');
    const refused = await pg.pg('rm', 'web');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /cannot remove a running container/);
    assert.equal(await pg.ok('rm', '-f', 'web'), 'web');
    assert.equal((await pg.pg('inspect', 'web')).code, 125);
  });

  it('is killed after the timeout, and by pg kill; wait tells how it ended', async () => {
    await pg.ok(
      'run',
      '-d',
      '--name',
      'deaf',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'trap "" TERM; while :; do sleep 0.1; done',
    );
    const waiting = pg.ok('wait', 'deaf');
    await pg.ok('stop', '-t', '0', 'deaf');
    assert.equal(await waiting, '137');
    await pg.ok('start', 'deaf');
    assert.equal(await pg.ok('kill', 'deaf'), 'deaf');
    assert.equal(await pg.ok('wait', 'deaf'), '137');
    assert.equal((await pg.pg('kill', 'deaf')).code, 1, 'what does not run cannot be killed');
    await pg.ok('rm', 'deaf');
  });

  it('takes the stop signal of the flags', async () => {
    await pg.ok(
      'run',
      '-d',
      '--name',
      'usr',
      '--stop-signal',
      'SIGUSR1',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'trap "exit 9" USR1; while :; do sleep 0.1; done',
    );
    await pg.ok('stop', 'usr');
    assert.equal(await inspect('usr', '.State.ExitCode'), '9');
    await pg.ok('rm', 'usr');
  });

  it('keeps its output: logs, --tail, -t, --since, -f to the end', async () => {
    await pg.ok('run', '-d', '--name', 'talker', ...QUIET, IMAGE, 'sh', '-c', 'seq 1 50; read x; echo ünïcode');
    await pg.ok('wait', 'talker');
    const all = await pg.pg('logs', 'talker');
    assert.equal(all.stdout, `${Array.from({ length: 50 }, (_, i) => i + 1).join('\n')}\nünïcode\n`);
    assert.equal((await pg.pg('logs', '--tail', '2', 'talker')).stdout, '50\nünïcode\n');
    assert.match(await pg.ok('logs', '-t', '-n', '1', 'talker'), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ünïcode$/);
    assert.equal(await pg.ok('logs', '--until', '2000-01-01T00:00:00Z', 'talker'), '');
    assert.match(await pg.ok('logs', '--since', '10m', 'talker'), /^1\n/);
    await pg.ok('rm', 'talker');
    await pg.pg('run', '--name', 'both', ...QUIET, IMAGE, 'sh', '-c', 'echo out; echo err >&2');
    const both = await pg.pg('logs', 'both');
    assert.deepEqual([both.stdout, both.stderr], ['out\n', 'err\n']);
    await pg.ok('rm', 'both');

    await pg.ok('run', '-d', '-i', '--name', 'later', ...QUIET, IMAGE, 'sh', '-c', 'echo begin; sleep 1; echo end');
    assert.equal(await pg.ok('logs', '-f', 'later'), 'begin\nend');
    await pg.ok('rm', '-f', 'later');
  });

  it('puts its log aside when it has grown', async () => {
    await pg.ok(
      'run',
      '--name',
      'loud',
      '--log-opt',
      'max-size=20k',
      '--log-opt',
      'max-file=2',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'for i in $(seq 1 40); do seq 1 40; sleep 0.01; done',
    );
    const lines = (await pg.ok('logs', 'loud')).split('\n');
    assert.ok(lines.length < 1600 && lines.length > 200, `${lines.length} lines`);
    assert.equal(lines.at(-1), '40');
    await pg.ok('rm', 'loud');
  });

  it('runs commands in it: exit codes, user, directory, environment, stdin, errors', async () => {
    await pg.ok('run', '-d', '--name', 'host', '-e', 'OWN=1', ...QUIET, IMAGE, 'sleep', '1000');
    assert.equal((await pg.pg('exec', 'host', 'sh', '-c', 'exit 5')).code, 5);
    const words = [
      'exec',
      '-u',
      'alice',
      '-w',
      '/tmp',
      '-e',
      'MORE=2',
      'host',
      'sh',
      '-c',
      'id -un; pwd; echo $OWN$MORE',
    ];
    assert.equal(await pg.ok(...words), 'alice\n/tmp\n12');
    assert.equal((await pg.pgWith('through', 'exec', '-i', 'host', 'cat')).stdout, 'through');
    assert.equal((await pg.pg('exec', 'host', 'nosuch')).code, 127);
    assert.equal((await pg.pg('exec', 'host', '/bin/notexecutable')).code, 126);
    await pg.ok('exec', '-d', 'host', 'sleep', '999');
    assert.match(await pg.ok('top', 'host'), /PID[^]*sleep 1000[^]*sleep 999/);
    await pg.ok('stop', '-t', '0', 'host');
    const stopped = await pg.pg('exec', 'host', 'true');
    assert.equal(stopped.code, 125);
    assert.match(stopped.stderr, /is not running/);
    await pg.ok('rm', 'host');
  });

  it('is inspected at any moment, while its root is written back and unmounted too', async () => {
    await pg.ok('run', '-d', '--name', 'ending', ...QUIET, IMAGE, 'sh', '-c', 'head -c 300m /dev/urandom > /file');
    await until('its end', async () => {
      const seen = await Promise.all([1, 2].map(() => inspect('ending', '.State.Status')));
      return seen.includes('exited');
    });
    await pg.ok('rm', 'ending');
  });

  it('is started by its policy when it fails, as often as it says, and not when it was stopped', async () => {
    await pg.ok(
      'run',
      '-d',
      '--name',
      'failing',
      '--restart',
      'on-failure:2',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'echo try; exit 1',
    );
    await until('three tries', async () => (await inspect('failing', '.State.Status')) === 'exited');
    assert.equal(await pg.ok('logs', 'failing'), 'try\ntry\ntry');
    assert.equal(await inspect('failing', '.RestartCount'), '2');
    await pg.ok('rm', 'failing');

    await pg.ok(
      'run',
      '-d',
      '--name',
      'again',
      '--restart',
      'always',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'echo up; sleep 0.2',
    );
    await until('a restart', async () => Number(await inspect('again', '.RestartCount')) > 0);
    await pg.ok('stop', 'again');
    assert.equal(await inspect('again', '.State.Status'), 'exited');
    await pg.ok('rm', 'again');
  });

  it('is limited in memory, processes and CPU; an OOM kill is told', async () => {
    const limits = ['--memory', '32m', '--pids-limit', '20', '--cpus', '0.5'];
    await pg.pg('run', '--name', 'greedy', ...limits, ...QUIET, IMAGE, 'sh', '-c', 'head -c 100m /dev/zero | tail');
    await pg.ok('run', '-d', '--name', 'eater', '--memory', '32m', ...QUIET, IMAGE, 'tail', '/dev/zero');
    assert.equal(await pg.ok('wait', 'eater'), '137');
    assert.equal(await inspect('eater', '.State.OOMKilled'), 'true');
    const forks = await pg.pg(
      'run',
      '--rm',
      ...limits,
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'for i in $(seq 1 40); do sleep 5 & done; wait',
    );
    assert.match(forks.stderr, /can't fork|Resource temporarily unavailable/);
    await pg.ok('run', '-d', '--name', 'busy', ...limits, ...QUIET, IMAGE, 'sh', '-c', 'while :; do :; done');
    const [usage] = (await pg.ok('stats', '--no-stream', '--format', '{{.MemUsage}} {{.PIDs}}', 'busy')).split('\n');
    assert.match(usage!, / \/ 32MiB 1$/);
    await pg.ok('rm', '-f', 'greedy', 'eater', 'busy');
  });

  it('shows what docker shows in inspect, and the position of the log', async () => {
    await pg.ok('create', '--name', 'made', '-l', 'a=b', '-e', 'X=1', ...QUIET, IMAGE, 'sh', '-c', 'echo x > /x');
    const [created] = JSON.parse(await pg.ok('inspect', 'made')) as [Inspected];
    assert.equal(created.State.Status, 'created');
    assert.deepEqual(created.Config.Cmd, ['sh', '-c', 'echo x > /x']);
    assert.equal(created.Config.Labels['a'], 'b');
    assert.equal(created.Config.Labels['kind'], 'test');
    await pg.ok('start', '-a', 'made');
    const position = JSON.parse(await pg.ok('inspect', '--format', '{{json .Pg.Position}}', 'made')) as {
      size: number;
      root: string;
    };
    assert.ok(position.size > 0);
    assert.match(position.root, /^[0-9a-f]{64}$/);
    assert.match(await pg.ok('diff', 'made'), /^A \/x$/m);
    const [image] = JSON.parse(await pg.ok('inspect', IMAGE)) as [Inspected];
    assert.deepEqual(image.RepoTags, ['pgtest/busybox:latest']);
    assert.equal(image.Pg.TreeRoot, created.Pg.TreeRoot);
    await pg.ok('rm', 'made');
  });

  it('gets another name; names and id prefixes find it', async () => {
    const id = await pg.ok('create', '--name', 'one', ...QUIET, IMAGE);
    await pg.ok('rename', 'one', 'two');
    assert.equal(await inspect('two', '.Id'), id);
    assert.equal(await inspect(id.slice(0, 6), '.Name'), '/two');
    assert.equal((await pg.pg('inspect', '--type', 'container', 'one')).code, 125);
    await pg.ok('create', '--name', 'one', ...QUIET, IMAGE);
    const taken = await pg.pg('rename', 'one', 'two');
    assert.equal(taken.code, 125);
    assert.match(taken.stderr, /already in use/);
    await pg.ok('rm', 'one', 'two');
    assert.equal((await pg.pg('rm', 'two')).code, 1);
    assert.equal((await pg.pg('rm', '-f', 'two')).code, 0);
  });

  it('passes signals that come to pg on to the command', async () => {
    const child = pg.start(
      'run',
      '--rm',
      '--name',
      'fg',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'trap "echo got; exit 3" INT; echo ready; while :; do sleep 0.1; done',
    );
    const outcome = outcomeOf(child);
    await until('ready', async () => (await pg.pg('logs', 'fg')).stdout.includes('ready'));
    child.kill('SIGINT');
    const { code, stdout } = await outcome;
    assert.deepEqual({ code, stdout }, { code: 3, stdout: 'ready\ngot\n' });
  });

  it('runs tini as process 1 with --init, and under crun', async function () {
    assert.equal(await pg.ok('run', '--rm', '--init', ...QUIET, IMAGE, 'cat', '/proc/1/comm'), 'docker-init');
    assert.equal(await pg.ok('run', '--rm', '--runtime', 'crun', ...QUIET, IMAGE, 'echo', 'crun'), 'crun');
    const { code } = await pg.pg('run', '--rm', '--runtime', 'crun', ...QUIET, IMAGE, 'nosuch');
    assert.equal(code, 127);
  });

  it('keeps none of the dead: not those that an exec under crun leaves when it fails', async () => {
    await pg.ok('run', '-d', '--name', 'dead', '--runtime', 'crun', ...QUIET, IMAGE, 'sleep', '1000');
    assert.equal((await pg.pg('exec', '-w', '/nowhere', 'dead', 'true')).code, 126);
    await until('they are gone', async () => !/crun/.test(await pg.ok('exec', 'dead', 'ps')));
    await pg.ok('rm', '-f', 'dead');
  });

  it('gives all devices and capabilities with --privileged, one device with --device', async () => {
    const privileged = await pg.ok(
      'run',
      '--rm',
      '--privileged',
      ...QUIET,
      IMAGE,
      'sh',
      '-c',
      'mount -t tmpfs t /tmp && ls /dev/fuse',
    );
    assert.equal(privileged, '/dev/fuse');
    assert.equal(await pg.ok('run', '--rm', '--device', '/dev/fuse', ...QUIET, IMAGE, 'ls', '/dev/fuse'), '/dev/fuse');
    assert.notEqual((await pg.pg('run', '--rm', ...QUIET, IMAGE, 'ls', '/dev/fuse')).code, 0);
  });

  it('writes its shim’s messages where they can be found', () => {
    assert.equal(readFileSync(join(pg.roots.run, 'shims.log'), 'utf8'), '', 'and there are none');
  });
});
