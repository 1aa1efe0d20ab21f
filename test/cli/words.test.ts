import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { takeGlobals } from '../../cli/argv.ts';
import { PG } from '../runtime/installation.ts';

describe('the words of a command line', () => {
  it('may have --root before the command, and ask for help in docker’s ways', () => {
    const cases: [line: string, words: string, root: string | undefined][] = [
      ['--root /r run img --root /x', 'run img --root /x', '/r'],
      ['--root=/r ps -a', 'ps -a', '/r'],
      ['--root /r peer add x', 'peer add x', '/r'],
      ['ps --root /r', 'ps --root /r', undefined],
      ['help', '--help', undefined],
      ['help peer add', 'peer add --help', undefined],
      ['ps -h', 'ps --help', undefined],
      ['run -h box img', 'run -h box img', undefined],
      ['--version', '--version', undefined],
    ];
    for (const [line, words, root] of cases) {
      const env: NodeJS.ProcessEnv = {};
      assert.deepEqual(takeGlobals(line.split(' '), env), words.split(' '), line);
      assert.equal(env['PG_ROOT'], root, line);
    }
  });

  it('that pg does not know are answered with what to type', function () {
    this.timeout(60_000);
    if (!existsSync(PG)) {
      console.error(`      skipped: no ${PG}`);
      this.skip();
    }
    const cases: [string, RegExp][] = [
      ['ps nope', /pg ps takes no 'nope'\n {4}see 'pg ps --help'/],
      ['peer nope', /'peer nope' is not a pg command\n {4}see 'pg peer --help'/],
      ['pull', /'pull' is not a pg command\n {4}'pg import NAME'/],
      ['imprt', /did you mean 'pg import'\?/],
      ['run', /^pg: pg run needs IMAGE\n {4}pg run --help/],
      ['tag', /^pg: pg tag needs \w+ and \w+\n {4}pg tag --help/],
      ['ps --badflag', /^pg: Nonexistent flag: --badflag\n {4}pg ps --help/],
    ];
    for (const [line, answer] of cases) {
      const { status, stderr } = spawnSync(PG, line.split(' '), { encoding: 'utf8' });
      assert.equal(status, 125, line);
      assert.match(stderr, answer, line);
    }
  });
});
