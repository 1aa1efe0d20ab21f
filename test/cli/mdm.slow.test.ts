import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkRange, checkResult, type RangeJson, type ResultJson } from '../mdm/independent.ts';
import { twinFold, twinRoot } from '../mdm/twin.ts';
import { generate, hex, vectors } from '../mdm/vectors.ts';
import { noise } from '../store/fixture.ts';
import { type Answer, Desk } from './mdm-fixture.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');
const S = 4_194_304;

type Step = { name: string; inputs: object | string; proofWanted?: boolean; payload?: string | null };

describe('pg mdm', function () {
  this.timeout(300_000);
  let desk: Desk;
  beforeEach(() => (desk = new Desk()));
  afterEach(() => desk.remove());

  const write = (name: string, bytes: Uint8Array | string): void => writeFileSync(desk.path(name), bytes);
  const read = (name: string): Buffer => readFileSync(desk.path(name));
  const program = (instructions: Step[], more: object = {}): void =>
    write('p.json', JSON.stringify({ ...more, instructions }));
  const ok = (answer: Answer): string => {
    assert.equal(answer.code, 0, answer.stderr);
    return answer.stdout;
  };
  /** Executes a program on `f`, has the result checked by pg and by the other verifier, and gives it. */
  const exec = async (instructions: Step[], ...args: string[]): Promise<ResultJson> => {
    program(instructions);
    const text = ok(await desk.pg(['exec', ...args, 'p.json', 'f']));
    write('r.json', text);
    const result = JSON.parse(text) as ResultJson;
    if (instructions.every(({ proofWanted }) => proofWanted)) {
      checkResult(result);
      ok(await desk.pg(['verify-batch', 'r.json']));
    }
    return result;
  };

  it('the example in docs/formats/mdm-json.md is what it prints', async () => {
    const page = readFileSync(join(HOME, 'docs/formats/mdm-json.md'), 'utf8');
    const [input, result, proof] = [...page.matchAll(/```json\n([^`]*)```/g)].map((match) => match[1]!);
    write('greeting', 'hello world');
    write('program.json', input!);
    assert.equal(ok(await desk.pg(['exec', 'program.json', 'greeting'])), result);
    assert.equal(ok(await desk.pg(['prove', 'greeting', '0:1'])), proof);
    assert.equal(read('greeting').toString(), `hello there${'\0'.repeat(89)}`);
    checkResult(JSON.parse(result!) as ResultJson);
    checkRange(JSON.parse(proof!) as RangeJson);
  });

  it("roots and sector roots are those of Sia's vectors", async () => {
    for (const v of vectors.fileRoots) {
      write('f', generate(v.gen, v.size));
      assert.deepEqual(JSON.parse(ok(await desk.pg(['root', '--format', 'json', 'f']))), {
        root: v.root,
        size: v.size,
      });
      const roots = ok(await desk.pg(['sector-roots', 'f']))
        .trim()
        .split('\n');
      assert.deepEqual(roots.slice(0, v.sectorRoots.length), v.sectorRoots);
      assert.equal(hex(twinFold(roots.map((root) => Buffer.from(root, 'hex')))), v.root);
    }
    for (const v of vectors.bufferRangeProofs) {
      write('f', generate(v.gen, v.size));
      const { start, end, proof } = v.proofs.at(-1)!;
      const json = JSON.parse(ok(await desk.pg(['prove', 'f', `${start}:${end}`]))) as RangeJson;
      assert.deepEqual([json.root, json.proof], [v.root, proof.join('')]);
    }
    assert.match(ok(await desk.pg(['root', '-'], 'hello')), new RegExp(`^${hex(twinRoot(Buffer.from('hello')))} 5\n$`));
    write('empty', '');
    assert.equal(ok(await desk.pg(['root', 'empty'])), `${'0'.repeat(64)} 0\n`);
  });

  it('proofs of segments: right ones are accepted, any other not', async () => {
    write('f', noise(S + 777, 1));
    const leaves = Math.ceil((S + 777) / 64);
    for (const range of ['0:1', `${leaves - 1}:${leaves}`, `65530:${leaves}`, `0:${leaves}`]) {
      const text = ok(await desk.pg(['prove', 'f', range]));
      const json = JSON.parse(text) as RangeJson;
      checkRange(json);
      ok(await desk.pg(['verify', '-'], text));
      ok(await desk.pg(['verify', '-', '--root-is', json.root, '--size-is', String(json.size)], text));
      if (range !== '0:1') continue;
      const wrong: [object, string][] = [
        [{ proof: `${json.proof}00` }, 'MDM_PROOF_LENGTH'],
        [{ proof: json.proof.slice(2) }, 'MDM_PROOF_LENGTH'],
        [{ proof: `${json.proof}${'0'.repeat(64)}` }, 'MDM_PROOF_LENGTH'],
        [{ proof: `${json.proof[0] === '0' ? '1' : '0'}${json.proof.slice(1)}` }, 'MDM_PROOF_REFUTED'],
        [{ data: json.data.replace(/^../, (two) => (two === '00' ? '01' : '00')) }, 'MDM_PROOF_REFUTED'],
        [{ data: `${json.data}00` }, 'MDM_OUTPUT_REFUTED'],
        [{ size: 128 }, 'MDM_PROOF_LENGTH'],
        [{ start: 1, end: 2 }, 'MDM_PROOF'],
        [{ end: 2 ** 53 }, 'MDM_OUT_OF_BOUNDS'],
        [{ size: '18446744073709551615' }, 'MDM_SIZE_TOO_LARGE'],
        [{ start: -1 }, 'MDM_BAD_INPUT'],
        [{ root: 'xyz' }, 'MDM_BAD_JSON'],
      ];
      for (const [change, code] of wrong) {
        const { code: exit, stderr } = await desk.pg(['verify', '-'], JSON.stringify({ ...json, ...change }));
        assert.equal(exit, 1);
        assert.match(stderr, new RegExp(`^pg: ${code}`), JSON.stringify(change));
      }
      assert.equal((await desk.pg(['verify', '-', '--root-is', '00'.repeat(32)], text)).code, 1);
    }
    for (const [range, code] of [
      [`0:${leaves + 1}`, 'MDM_OUT_OF_BOUNDS'],
      ['2:2', 'MDM_BAD_RANGE'],
      ['x', 'MDM_BAD_RANGE'],
    ]) {
      const { code: exit, stderr } = await desk.pg(['prove', 'f', range!]);
      assert.deepEqual([exit, stderr.includes(`pg: ${code}: `)], [125, true], stderr);
    }
  });

  it('all seven instructions on an ordinary file, whose mode, links and neighbours stay', async () => {
    const bytes = noise(2 * S + 100, 2);
    write('f', bytes);
    chmodSync(desk.path('f'), 0o640);
    symlinkSync('f', desk.path('link'));
    write('payload', noise(300_000, 3));
    const root = ok(await desk.pg(['sector-roots', 'f'])).split('\n')[1]!;
    const result = await exec([
      { name: 'Read', inputs: { offset: 10, length: 100 }, proofWanted: true },
      { name: 'ReadRoot', inputs: { root, offset: '5', length: '60' }, proofWanted: true },
      {
        name: 'WriteRoot',
        inputs: { root, sectorIndex: 1, offset: 1, length: 3 },
        proofWanted: true,
        payload: 'base64:AQID',
      },
      { name: 'Write', inputs: { offset: 1000, length: 300_000 }, proofWanted: true, payload: '@payload' },
      { name: 'Copy', inputs: { length: 500, destination: 0, source: 250 }, proofWanted: true },
      { name: 'Swap', inputs: { length: 4096, a: 8192, b: 4096 }, proofWanted: true },
      { name: 'Truncate', inputs: { newSize: S + 50 }, proofWanted: true, payload: null },
    ]);
    const expected = Buffer.from(bytes);
    expected.set([1, 2, 3], S + 1);
    noise(300_000, 3).copy(expected, 1000);
    expected.copyWithin(0, 250, 750);
    const [a, b] = [Buffer.from(expected.subarray(8192, 12_288)), Buffer.from(expected.subarray(4096, 8192))];
    b.copy(expected, 8192);
    a.copy(expected, 4096);
    assert.ok(read('f').equals(expected.subarray(0, S + 50)));
    assert.equal(result.instructions[0]!.output, bytes.toString('hex', 10, 110));
    assert.equal(result.instructions[1]!.output, bytes.toString('hex', S + 5, S + 65));
    assert.equal(result.final.root, ok(await desk.pg(['root', 'f'])).slice(0, 64));
    assert.equal(statSync(desk.path('f')).mode & 0o777, 0o640);
    ok(await desk.pg(['exec', 'p.json', 'link']).then(async () => desk.pg(['root', 'link'])));
    assert.deepEqual(readdirSync(desk.dir).toSorted(), ['f', 'link', 'p.json', 'payload', 'r.json', 'root']);
    const cost = JSON.parse(ok(await desk.pg(['cost', 'p.json', '--size', String(bytes.length), '--format', 'json'])));
    assert.deepEqual(cost.cost, result.cost);
    assert.equal(cost.finalSize, S + 50);
  });

  it("files of pg's store: made, changed, copied, listed, removed; their sectors are read by root", async () => {
    const bytes = noise(S + 10, 4);
    write('payload', bytes);
    program([
      { name: 'Truncate', inputs: { newSize: bytes.length }, proofWanted: true },
      { name: 'Write', inputs: { offset: 0, length: bytes.length }, proofWanted: true, payload: '@payload' },
    ]);
    const missing = await desk.pg(['exec', 'p.json', 'store:one']);
    assert.deepEqual([missing.code, missing.stderr.startsWith('pg: MDM_NO_SUCH_FILE: ')], [125, true]);
    checkResult(JSON.parse(ok(await desk.pg(['exec', '--create', 'p.json', 'store:one']))) as ResultJson);
    ok(await desk.pg(['cp', 'store:one', 'store:two']));
    write('f', 'an ordinary file');
    const root = ok(await desk.pg(['sector-roots', 'store:two'])).split('\n')[0]!;
    const result = await exec([{ name: 'ReadRoot', inputs: { root, offset: 4000, length: 5 }, proofWanted: true }]);
    assert.equal(result.instructions[0]!.output, bytes.toString('hex', 4000, 4005));
    ok(await desk.pg(['rm', 'one']));
    assert.deepEqual(ok(await desk.pg(['ls', '-q'])), 'two\n');
    write('payload', bytes);
    assert.equal(ok(await desk.pg(['root', 'store:two'])), ok(await desk.pg(['root', 'payload'])));
    checkRange(JSON.parse(ok(await desk.pg(['prove', 'store:two', '65530:65537']))) as RangeJson);
  });

  it('what is wrong with a batch has its name, leaves the file as it was, and is charged', async () => {
    const bytes = noise(9000, 5);
    write('f', bytes);
    write('short', 'ab');
    const state = JSON.parse(ok(await desk.pg(['root', '--format', 'json', 'f'])));
    const I = (name: string, inputs: object | string, payload?: string): Step => ({
      name,
      inputs,
      ...(payload === undefined ? {} : { payload }),
    });
    const [max, root] = ['18446744073709551615', '11'.repeat(32)];
    const cases: [Step[], string, string, object?, string?][] = [
      [[I('Append', '')], 'refused', 'MDM_UNKNOWN_INSTRUCTION'],
      [[I('__proto__', { a: 1 })], 'refused', 'MDM_UNKNOWN_INSTRUCTION'],
      [[I('Read', '00'.repeat(4097))], 'refused', 'MDM_INPUT_TOO_LARGE'],
      [[I('Read', '00'.repeat(15))], 'refused', 'MDM_BAD_INPUT'],
      [[I('Swap', { length: 100, a: 0, b: 99 })], 'refused', 'MDM_OVERLAPPING_SWAP'],
      [[I('Read', { offset: 8999, length: 2 })], 'refused', 'MDM_OUT_OF_BOUNDS'],
      [[I('Read', { offset: max, length: 1 })], 'refused', 'MDM_OUT_OF_BOUNDS'],
      [[I('Read', { offset: 1, length: max })], 'refused', 'MDM_OUT_OF_BOUNDS'],
      [[I('WriteRoot', { root, sectorIndex: max, offset: 0, length: 1 }, '00')], 'refused', 'MDM_OUT_OF_BOUNDS'],
      [[I('Truncate', { newSize: max })], 'refused', 'MDM_SIZE_TOO_LARGE'],
      [[I('Write', { offset: 0, length: 2 }, '00')], 'refused', 'MDM_PAYLOAD_LENGTH'],
      [[I('Write', { offset: 0, length: 2 })], 'refused', 'MDM_PAYLOAD_LENGTH'],
      [[I('Read', { offset: 0, length: 2 }, '00')], 'refused', 'MDM_PAYLOAD_LENGTH'],
      [[I('Write', { offset: 0, length: 3 }, '@short')], 'refused', 'MDM_PAYLOAD_LENGTH'],
      [[I('Write', { offset: 0, length: 3 }, '@/dev/null')], 'failed', 'MDM_PAYLOAD_LENGTH'],
      [[I('Write', { offset: 0, length: 3 }, '@/dev/zero')], 'failed', 'MDM_PAYLOAD_LENGTH'],
      [[I('Write', { offset: 0, length: 3 }, '@.')], 'failed', 'MDM_PAYLOAD_BROKEN'],
      [[I('ReadRoot', { root, offset: 0, length: 1 })], 'failed', 'MDM_SECTOR_NOT_FOUND'],
      [
        [
          I('Write', { offset: 0, length: 1 }, '00'),
          I('WriteRoot', { root, sectorIndex: 0, offset: 0, length: 1 }, '00'),
        ],
        'failed',
        'MDM_SECTOR_CHANGED',
      ],
      [
        [I('Truncate', { newSize: 2 ** 48 }), I('Copy', { length: 2 ** 47, destination: 2 ** 47, source: 0 })],
        'refused',
        'MDM_OUT_OF_MEMORY',
      ],
      [[], 'refused', 'MDM_WRONG_STATE', { initial: { ...state, root } }],
      [[], 'refused', 'MDM_WRONG_STATE', { initial: { ...state, size: 9001 } }],
      [[I('Truncate', { newSize: 1 })], 'refused', 'MDM_OVER_BUDGET', {}, 'compute=10'],
    ];
    for (const [steps, outcome, code, more, budget] of cases) {
      program(steps, more);
      const {
        code: exit,
        stdout,
        stderr,
      } = await desk.pg(['exec', ...(budget ? ['--budget', budget] : []), 'p.json', 'f']);
      assert.equal(exit, 125, stderr);
      assert.ok(stderr.startsWith(`pg: ${code}: `), stderr);
      const result = JSON.parse(stdout) as ResultJson;
      assert.deepEqual([result.outcome, result.error?.code, result.final], [outcome, code, state]);
      assert.equal(result.cost.compute > 1, outcome === 'failed', 'refused costs init alone');
      assert.ok(read('f').equals(bytes));
    }
    assert.equal((await desk.pg(['verify-batch', '-'], '{"format":"pg-mdm-result-1","outcome":"refused"}')).code, 1);
  });

  it('hostile JSON is refused by name, quickly', async () => {
    write('f', noise(9000, 5));
    const read = (inputs: string): string => `{"instructions":[{"name":"Read","inputs":${inputs}}]}`;
    const texts: [string, string][] = [
      ['', 'MDM_BAD_JSON'],
      ['[]', 'MDM_BAD_JSON'],
      ['{"instructions":{}}', 'MDM_BAD_JSON'],
      ['{"instructions":[1]}', 'MDM_BAD_JSON'],
      ['{"instructions":[],"budgets":1}', 'MDM_BAD_JSON'],
      ['{"instructions":[{"name":"Read"}]}', 'MDM_BAD_JSON'],
      ['{"instructions":[{"name":"Write","inputs":"","payload":"0g"}]}', 'MDM_BAD_JSON'],
      ['{"instructions":[{"name":"Write","inputs":"","payload":"base64:A"}]}', 'MDM_BAD_JSON'],
      [read('{"offset":0,"length":1,"more":1}'), 'MDM_BAD_JSON'],
      [read('{"offset":0}'), 'MDM_BAD_INPUT'],
      [read('{"offset":0,"length":-1}'), 'MDM_BAD_INPUT'],
      [read('{"offset":0,"length":1.5}'), 'MDM_BAD_INPUT'],
      [read('{"offset":0,"length":9007199254740994}'), 'MDM_BAD_INPUT'],
      [read('{"offset":0,"length":"18446744073709551616"}'), 'MDM_BAD_INPUT'],
      [read('{"offset":0,"length":"0x10"}'), 'MDM_BAD_INPUT'],
      ['['.repeat(3_000_000), 'MDM_BAD_JSON'],
      [`[${'[],'.repeat(5_000_000)}[]]`, 'MDM_BAD_JSON'],
    ];
    for (const [text, code] of texts) {
      const { code: exit, stderr } = await desk.pg(['exec', '-', 'f'], text);
      assert.deepEqual([exit, stderr.split(':')[1]?.trim()], [125, code], `${text.slice(0, 60)}: ${stderr}`);
      const { code: other } = await desk.pg(['verify-batch', '-'], text);
      assert.equal(other, 1);
    }
    for (const args of [
      ['exec', '--budget', 'x=1', 'p', 'f'],
      ['exec', 'nothing', 'f'],
      ['root', 'nothing'],
      ['root', '.'],
      ['cost', 'p', '--size', '-1'],
    ]) {
      const { code, stderr } = await desk.pg(args);
      assert.equal(code, 125);
      assert.match(stderr, /^pg: /);
    }
  });

  it('no tampered result is verified', async () => {
    write('f', noise(20_000, 6));
    const result = await exec([
      { name: 'Write', inputs: { offset: 70, length: 3 }, proofWanted: true, payload: '010203' },
      { name: 'Read', inputs: { offset: 60, length: 100 }, proofWanted: true },
    ]);
    const flip = (text: string): string => `${text.slice(0, -1)}${text.endsWith('0') ? '1' : '0'}`;
    const step = (i: number, change: object): object => ({
      ...result,
      instructions: result.instructions.map((one, k) => (k === i ? { ...one, ...change } : one)),
    });
    const [first, second] = [result.instructions[0]!, result.instructions[1]!];
    const forgeries = [
      step(0, { proof: `${first.proof}00` }),
      step(0, { proof: first.proof!.slice(2) }),
      step(0, { proof: flip(first.proof!) }),
      step(0, { proof: null }),
      step(0, { payload: '010204' }),
      step(0, { payload: '01' }),
      step(1, { output: flip(second.output) }),
      step(1, { output: second.output.slice(2) }),
      step(0, { state: { ...first.state, size: 1 } }),
      step(1, { state: { ...second.state, root: flip(second.state.root) } }),
      { ...result, initial: { ...result.initial, root: flip(result.initial.root) } },
      { ...result, initial: { ...result.initial, size: 20_001 } },
      { ...result, final: { ...result.final, root: flip(result.final.root) } },
      { ...result, cost: { ...result.cost, read: 1 } },
      { ...result, instructions: [first] },
      { ...result, format: 'else' },
    ];
    for (const [i, forged] of forgeries.entries()) {
      const { code, stderr } = await desk.pg(['verify-batch', '-'], JSON.stringify(forged));
      assert.equal(code, 1, `forgery ${i}`);
      assert.match(stderr, /^pg: MDM_/);
    }
  });

  it('SIGINT while a payload does not come leaves the file as it was; so do a kill, a hard link and another writer', async () => {
    const bytes = noise(9000, 7);
    write('f', bytes);
    execFileSync('mkfifo', [desk.path('pipe')]);
    program([{ name: 'Write', inputs: { offset: 0, length: 4 }, payload: '@pipe' }]);
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const child = spawn(join(HOME, 'bin/pg'), ['mdm', 'exec', 'p.json', 'f'], {
        cwd: desk.dir,
        env: { ...process.env, PG_ROOT: desk.root },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let said = '';
      child.stdout.on('data', (data) => (said += data));
      const closed = new Promise((resolve) => child.once('close', (_code, by) => resolve(by)));
      // Opening a pipe for writing waits for its reader: the batch is at its payload then.
      const pipe = spawn('sh', ['-c', 'exec 3>pipe; echo open; exec sleep 60'], { cwd: desk.dir });
      await Promise.race([closed, new Promise((resolve) => pipe.stdout.once('data', resolve))]);
      child.kill(signal);
      assert.equal(await closed, signal);
      pipe.kill();
      if (signal === 'SIGINT') assert.equal((JSON.parse(said) as ResultJson).outcome, 'interrupted');
      assert.ok(read('f').equals(bytes));
    }
    program([{ name: 'Write', inputs: { offset: 0, length: 1 }, payload: '00' }]);
    linkSync(desk.path('f'), desk.path('other'));
    const linked = await desk.pg(['exec', 'p.json', 'f']);
    assert.match(linked.stderr, /^pg: MDM_FILE_LINKED: /);
    assert.ok(read('f').equals(bytes));
    assert.deepEqual(
      readdirSync(desk.dir).filter((name) => name.startsWith('.')),
      [],
    );
  });

  it('what a killed process left beside the file is taken away', async () => {
    write('f', 'abc');
    const { pid } = spawn('true');
    await new Promise((resolve) => setTimeout(resolve, 200));
    write(`.f.pg-mdm-${pid}`, 'half');
    write('.f.pg-mdm-x', 'not ours');
    await exec([{ name: 'Write', inputs: { offset: 0, length: 1 }, payload: '58' }]);
    assert.equal(read('f').toString(), 'Xbc');
    assert.deepEqual(
      readdirSync(desk.dir).filter((name) => name.startsWith('.')),
      ['.f.pg-mdm-x'],
    );
  });

  it('a large sparse file is read in bounded memory', async () => {
    write('f', '');
    truncateSync(desk.path('f'), 2 * 2 ** 30 + 5);
    const line = execFileSync('/bin/sh', ['-c', `ulimit -d 1000000; exec ${join(HOME, 'bin/pg')} mdm root f`], {
      cwd: desk.dir,
      env: { ...process.env, PG_ROOT: desk.root },
      encoding: 'utf8',
    });
    assert.match(line, new RegExp(` ${2 * 2 ** 30 + 5}\n$`));
  });
});
