import { Args } from '@oclif/core';
import { cloneContainer } from '../../runtime/clone.ts';
import { PgCommand } from '../base.ts';
import { parseContainerAt } from '../place.ts';

export default class Clone extends PgCommand {
  static override summary = 'Make a container that begins with the files of another, as it is or was.';
  static override description = `At once, whatever the size: the clone's log shares what the other has written, and goes its own way from there; either may be removed
first. The other may run meanwhile. The clone has its settings, with the same published ports, and is not started. Prints the clone's id.`;
  static override examples = [
    '<%= config.bin %> clone web web-test',
    { description: 'As it was before', command: '<%= config.bin %> clone web@before-upgrade web-old' },
  ];
  static override args = {
    container: Args.string({ description: 'CONTAINER[@POSITION]', required: true }),
    name: Args.string({ description: "the clone's name (else a random one)" }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Clone);
    this.needRoot('pg clone');
    const { name, position } = parseContainerAt(args.container);
    const { id } = await cloneContainer(this.roots(flags), name, position, args.name);
    process.stdout.write(`${id}\n`);
  }
}
