import { nodeFlags, PgNodeCommand } from '../../node.ts';

export default class NodeStart extends PgNodeCommand {
  static override summary = 'Run the node daemon, in the foreground or (--detach) in the background.';
  static override description =
    'The identity of the node is made the first time. Containers do not depend on the daemon: it may end, or be killed, at any time.';
  static override examples = [
    '<%= config.bin %> node start --detach',
    '<%= config.bin %> node start --listen [2001:db8::7]:7411',
  ];
  static override flags = nodeFlags;

  async run(): Promise<void> {
    const { flags } = await this.parse(NodeStart);
    await this.start(this.roots(flags), flags.listen, flags.detach);
  }
}
