// What has to run in the browser: language, theme, the tab's key, state that survives a refresh, files.
// The browser remembers language and theme; the key and a page's state only until the tab is closed.
window.tuneloop = {
  translate(language, names) {
    localStorage.setItem('tuneloop.language', language);
    this.applyLanguage(language, names);
  },
  applyLanguage(language, names) {
    document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
    document.title = names[language].title;
    for (const [id, name] of Object.entries(names[language].signs)) {
      const button = document.getElementById(id);
      if (button) { button.title = name; button.ariaLabel = name; }
    }
  },
  language() {
    const known = (navigator.languages || [navigator.language]).find(name => /^(zh|en)/i.test(name)) || 'en';
    const kept = localStorage.getItem('tuneloop.language');
    return ['en', 'zh'].includes(kept) ? kept : known.slice(0, 2).toLowerCase();
  },
  switchTheme() {
    localStorage.setItem('tuneloop.dark', document.body.classList.toggle('dark'));
  },
  key() {
    return new URLSearchParams(location.search).get('invite') || sessionStorage.getItem('tuneloop.api_key') || '';
  },
  keepKey(key) {
    sessionStorage.setItem('tuneloop.api_key', key);
  },
  open(page, names) {
    const dark = localStorage.getItem('tuneloop.dark');
    if (dark !== null) document.body.classList.toggle('dark', dark === 'true');
    const query = Object.fromEntries(new URLSearchParams(location.search));
    document.body.classList.toggle('tl-invited', 'invite' in query);
    const language = this.language();
    this.applyLanguage(language, names);
    const state = { query, kept: this.read(page), fields: this.read(`${page}.fields`) };
    return [language, this.key(), JSON.stringify(state)];
  },
  read(name) {
    try {
      return JSON.parse(sessionStorage.getItem(`tuneloop.${name}`)) || {};
    } catch {
      return {};
    }
  },
  // A tab's storage is limited to about 5 MB; more isn't kept, and the page still works.
  write(name, words) {
    try {
      sessionStorage.setItem(`tuneloop.${name}`, words);
    } catch {
      sessionStorage.removeItem(`tuneloop.${name}`);
    }
  },
  keep(page, words) {
    if (words) this.write(page, words);
  },
  keepFields(page, names, values) {
    this.write(`${page}.fields`, JSON.stringify(Object.fromEntries(names.map((name, i) => [name, values[i]]))));
  },
  address(words) {
    if (!words) return;
    const query = new URLSearchParams(JSON.parse(words)).toString();
    history.replaceState(history.state, '', location.pathname + (query ? `?${query}` : ''));
  },
  authorization() {
    return this.key() ? { Authorization: `Bearer ${this.key()}` } : {};
  },
  // The API's file object for an uploaded File; rejects with the API's error message.
  upload(file, purpose, onProgress) {
    return new Promise((resolve, reject) => {
      const form = new FormData();
      form.append('purpose', purpose);
      form.append('file', file);
      const request = new XMLHttpRequest();
      request.open('POST', '/v1/files');
      for (const [name, value] of Object.entries(this.authorization())) request.setRequestHeader(name, value);
      request.upload.onprogress = event => onProgress && onProgress(event.loaded, event.total);
      request.onerror = () => reject(new Error('network'));
      request.onload = () => {
        const answer = this.parsed(request.responseText);
        if (request.status < 400) resolve(answer);
        else reject(new Error(answer.error?.message || `HTTP ${request.status}`));
      };
      request.send(form);
    });
  },
  parsed(words) {
    try {
      return JSON.parse(words);
    } catch {
      return {};
    }
  },
  // Saves the API's response as the file `name`; rejects with the API's error message.
  async download(path, name) {
    const response = await fetch(path, { headers: this.authorization() });
    if (!response.ok) throw new Error(this.parsed(await response.text()).error?.message || `HTTP ${response.status}`);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await response.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  },
};
// Gradio's own textbox submits only with Enter.
document.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || !event.target.closest?.('#tl-prompt')) return;
  document.getElementById('tl-send')?.click();
});

// After a restart, the server doesn't know this tab, so the tab reloads and restores its state. Gradio does this itself
// only when the connection was lost without an error.
(() => {
  let quietUntil = 0;
  const look = async () => {
    const { app_id: own, root } = window.gradio_config || {};
    if (document.hidden || !own || Date.now() < quietUntil) return;
    const asked = fetch(`${root || ''}/gradio_api/app_id`, { signal: AbortSignal.timeout(2500) });
    const config = await asked.then(answer => (answer.ok ? answer.json() : {})).catch(() => ({}));
    if (!config.app_id || config.app_id === own) return;
    quietUntil = Date.now() + 20000; // don't reload again while the page loads; do if it never arrives
    location.reload();
  };
  setInterval(look, 3000);
  document.addEventListener('visibilitychange', look);
})();
