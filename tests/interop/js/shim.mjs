// Node 20 lacks Promise.withResolvers, which js-libp2p 3 uses. Loaded before it.

Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { [resolve, reject] = [yes, no] })
  return { promise, resolve, reject }
}
