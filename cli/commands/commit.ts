import { Args, Flags } from '@oclif/core';
import { commitToImage } from '../../runtime/commit-image.ts';
import { PgCommand } from '../base.ts';
import { parseContainerAt } from '../place.ts';

export default class Commit extends PgCommand {
  static override summary = 'Make an image of a container: its image, and a layer of what it has changed.';
  static override description = `The container may run meanwhile; what it has written so far is in the image. With @POSITION it is what the container was. Bytes
that are in the store are not stored again. Volumes are not in it. Prints the image's id.`;
  static override examples = [
    '<%= config.bin %> commit web web:patched',
    {
      description: 'As it was before',
      command: "<%= config.bin %> commit -m 'state of the backup' web@before web:old",
    },
    {
      description: 'With another command',
      command: `<%= config.bin %> commit -c 'CMD ["nginx", "-g", "daemon off;"]' web web:patched`,
    },
  ];
  static override flags = {
    author: Flags.string({ char: 'a', description: 'who made it', helpValue: "'NAME <MAIL>'", default: '' }),
    change: Flags.string({
      char: 'c',
      multiple: true,
      multipleNonGreedy: true,
      description:
        'CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR, as in a Dockerfile',
      helpValue: 'INSTRUCTION',
    }),
    message: Flags.string({ char: 'm', description: 'a comment in its history', helpValue: 'TEXT', default: '' }),
  };
  static override args = {
    container: Args.string({ description: 'CONTAINER[@POSITION]', required: true }),
    image: Args.string({ description: 'the name of the image (else it has only its id)' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Commit);
    this.needRoot('pg commit');
    const { name, position } = parseContainerAt(args.container);
    const { author, message, change } = flags;
    const options = { author, message, changes: change ?? [] };
    const { id } = await commitToImage(this.roots(flags), name, position, args.image, options);
    process.stdout.write(`${id}\n`);
  }
}
