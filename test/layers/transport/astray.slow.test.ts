/** Where registries send us, with real addresses: a network namespace has a public and a private one, names in a hosts file, and a registry with TLS. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const PUBLIC = '93.184.216.34';
const PRIVATE = '10.0.0.5';
const PORT = '5000';

describe('a registry on a public address', function () {
  this.timeout(600_000);
  const netns = `pgt-${randomBytes(3).toString('hex')}`;
  let dir = '';
  let server: ChildProcess | undefined;
  let said = '';

  before(async function () {
    if (process.getuid?.() !== 0) this.skip();
    dir = mkdtempSync('/var/tmp/pg-test-');
    const ip = (...words: string[]): void => void execFileSync('ip', words);
    ip('netns', 'add', netns);
    ip('-n', netns, 'link', 'set', 'lo', 'up');
    for (const address of [PUBLIC, PRIVATE]) ip('-n', netns, 'addr', 'add', `${address}/32`, 'dev', 'lo');
    mkdirSync(`/etc/netns/${netns}`, { recursive: true });
    writeFileSync(`/etc/netns/${netns}/hosts`, `${PUBLIC} outer.test\n${PRIVATE} inner.test\n`);
    const [certificate, key] = [join(dir, 'server.crt'), join(dir, 'server.key')];
    const names = `subjectAltName=IP:${PUBLIC},IP:${PRIVATE},DNS:outer.test,DNS:inner.test`;
    execFileSync(
      'openssl',
      `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pg -addext ${names} -keyout ${key} -out ${certificate}`.split(
        ' ',
      ),
      { stdio: 'ignore' },
    );
    for (const host of [PUBLIC, 'outer.test', PRIVATE, 'inner.test']) {
      const certs = join(dir, '.config/containers/certs.d', `${host}:${PORT}`);
      mkdirSync(certs, { recursive: true });
      copyFileSync(certificate, join(certs, 'ca.crt'));
    }
    const words = [join(import.meta.dirname, 'astray-server.ts'), certificate, key, PUBLIC, PRIVATE, PORT];
    server = spawn('ip', ['netns', 'exec', netns, process.execPath, '--no-warnings', ...words]);
    server.stderr!.pipe(process.stderr);
    server.stdout!.setEncoding('utf8').on('data', (text: string) => (said += text));
    while (!said.includes('ready\n')) await once(server.stdout!, 'data');
  });
  after(async () => {
    if (server !== undefined && server.exitCode === null) {
      server.kill();
      await once(server, 'exit');
    }
    if (dir === '') return;
    execFileSync('ip', ['netns', 'del', netns]);
    rmSync(`/etc/netns/${netns}`, { recursive: true });
    rmSync(dir, { recursive: true });
  });

  async function outcome(name: string): Promise<{ code?: string; message?: string; id?: string }> {
    const child = join(import.meta.dirname, '../import-child.ts');
    const words = ['--no-warnings', child, join(dir, name), `docker://${PUBLIC}:${PORT}/${name}:1`];
    // What is believed besides the system's authorities is looked for at the place that a redirect leads to, too.
    const env = { ...process.env, HOME: dir, XDG_RUNTIME_DIR: dir, NODE_EXTRA_CA_CERTS: join(dir, 'server.crt') };
    const { stdout } = await promisify(execFile)('ip', ['netns', 'exec', netns, process.execPath, ...words], { env });
    return JSON.parse(stdout) as { code?: string };
  }

  it('may send us to another', async () => {
    const { id, message } = await outcome('open');
    assert.match(id ?? '', /^sha256:/, message);
  });

  for (const name of ['address', 'name', 'mapped']) {
    it(`may not send us to a private one by its ${name}: nothing is asked there`, async () => {
      const { code, message } = await outcome(name);
      assert.equal(code, 'REGISTRY_MISBEHAVES', message);
      assert.doesNotMatch(said, /asked for/);
    });
  }

  it('that gives a byte a second is given up', async function () {
    // Seven minutes: each of seven tries is waited for.
    if (process.env['PG_TEST_LONG'] !== '1') this.skip();
    const { code } = await outcome('drip');
    assert.equal(code, 'REGISTRY_UNREACHABLE');
  });
});
