// Preloaded with `--import`: packages come from the scratch directory, so that nothing is installed into the sources.
import { registerHooks } from "node:module";
import { pathToFileURL } from "node:url";

const installed = pathToFileURL(`${process.env.TOOLGATE_TEST_DIR}/node/package.json`).href;
const sources = new URL(".", import.meta.url).href;

registerHooks({
  resolve(specifier, context, next) {
    const bare = !/^(\.|\/|node:|file:|data:)/.test(specifier);
    return next(specifier, bare && context.parentURL?.startsWith(sources) ? { ...context, parentURL: installed } : context);
  },
});
