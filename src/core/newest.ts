/** Sets a key and makes it the newest of the map; beyond `limit` keys the oldest goes. */
export function setNewest<K, V>(map: Map<K, V>, key: K, value: V, limit: number): void {
  // the order of a map is that of insertion: what is set anew goes to the end
  map.delete(key)
  map.set(key, value)
  if (map.size > limit) map.delete(map.keys().next().value as K)
}
