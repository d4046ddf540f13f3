// Downloads and the import of an adapter: files go between browser and API, never through Python's pages.
const imported = button => {
  const [file, name, sameBase, status] = ['models-file', 'models-new-name', 'models-same-base', 'models-import-status']
    .map(id => document.getElementById(id));
  if (!file.files[0]) { status.textContent = button.dataset.missing; file.focus(); return; }
  const form = new FormData();
  if (name.value.trim()) form.append('name', name.value.trim());
  if (sameBase.checked) form.append('same_base', 'true');
  form.append('file', file.files[0]);
  const request = new XMLHttpRequest();
  request.open('POST', '/v1/adapters');
  for (const [header, value] of Object.entries(tuneloop.authorization())) request.setRequestHeader(header, value);
  request.upload.onprogress = event => {
    const share = Math.round(100 * event.loaded / event.total);
    status.textContent = share < 100 ? `${button.dataset.sending} ${share} %` : button.dataset.checking;
  };
  const end = fields => { button.disabled = false; status.textContent = ''; act(...fields); };
  request.onerror = () => end(['refused', { detail: '', kind: 'unreachable' }]);
  request.onload = () => {
    const answer = tuneloop.parsed(request.responseText);
    if (request.status < 400) { file.value = name.value = ''; end(['imported', { model: answer.model }]); }
    else end(['refused', { detail: answer.error?.message || `HTTP ${request.status}`, status: String(request.status) }]);
  };
  button.disabled = true;
  request.send(form);
};
const downloaded = async button => {
  button.disabled = true;
  try { await tuneloop.download(button.dataset.download, button.dataset.name); }
  catch (error) { act('download_failed', { detail: error.message || '' }); }
  finally { button.disabled = false; }
};
element.addEventListener('click', event => {
  const clicked = event.target.closest('[data-import], [data-download]');
  if (clicked) ('import' in clicked.dataset ? imported : downloaded)(clicked);
});
