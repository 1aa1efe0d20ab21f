import assert from 'node:assert/strict';
import { forEach } from '../../cli/each.ts';
import { PgError } from '../../mdm/error.ts';

describe('one thing after another from a command line', () => {
  it('tells what failed, and shows what a terminal would obey, in hints too', async () => {
    const { write } = process.stderr;
    let said = '';
    process.stderr.write = ((text: string) => ((said += text), true)) as typeof write;
    try {
      const code = await forEach(['a'], () => {
        throw new PgError('NO_SUCH_CONTAINER', 'no \x1b[2J', { hint: 'see \x1b]0;title\x07' });
      });
      assert.equal(code, 1);
    } finally {
      process.stderr.write = write;
    }
    assert.equal(said, 'pg: no \\x1b[2J\n    see \\x1b]0;title\\x07\n');
  });
});
